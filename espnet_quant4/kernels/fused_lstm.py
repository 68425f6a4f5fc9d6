"""Training of one quantized LSTM layer as one autograd function.

Forward: one matrix product gives all input gates, then the C++ recurrence activates them in place.
Backward: the C++ recurrence gives the gradients of all gates, and a matrix product each gives those of
input, input weight and recurrent weight. Between the two it keeps, for every frame and cell, the four
activated gates, the cell state and the output, as PyTorch's own LSTM does; everything else is computed
again. Definition: `espnet_quant4.kernels.reference.lstm_recurrence`, with autograd.

Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997, as in ``torch.nn.LSTM``; straight-through
gradients as in Fasoli et al., Interspeech 2021, section 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from espnet_quant4.kernels import training
from espnet_quant4.kernels.gradient_rules import GradientRule
from espnet_quant4.kernels.row_layout import RowLayout, row_layout
from espnet_quant4.kernels.tracing import tracer_of
from espnet_quant4.kernels.workspace import workspace


@dataclass(frozen=True)
class WeightCodes:
    """A weight of all directions as codes, on which products are computed: their sums are exact.

    Attributes:
        codes: ``(D, 4 * H, columns)`` int8.
        scale: ``(D, 4 * H)`` float32, the step of each row.
        max_code: largest code.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    max_code: int


@dataclass(frozen=True)
class InputCodes:
    """How the input product is computed on codes.

    Attributes:
        clip: of ``x``; all of ``x`` is on its grid.
        max_code: largest code of ``x``.
        weight: ``weight_ih``.
    """

    clip: float
    max_code: int
    weight: WeightCodes


@dataclass(frozen=True)
class Layer:
    """What of a layer is not a tensor with a gradient.

    Attributes:
        max_codes: largest code of each direction's hidden state; anything where it is not quantized.
        rules: the gradient of each direction's hidden quantizer.
        lengths: ``(B,)`` int64 on the CPU, each in ``1..T``; None: all are ``T``.
        quantized_output: whether the layer puts out hidden states after quantization.
        observed: whether to give back the hidden states before quantization too, without gradient.
        input_codes: None where the input product is one of floats.
        hidden_codes: ``weight_hh``; None where the recurrent product is one of floats.
    """

    max_codes: tuple[int, ...]
    rules: tuple[GradientRule, ...]
    lengths: torch.Tensor | None = None
    quantized_output: bool = False
    observed: bool = False
    input_codes: InputCodes | None = None
    hidden_codes: WeightCodes | None = None

    @property
    def is_float(self) -> bool:
        """Whether no direction quantizes its hidden state."""
        return all(rule == GradientRule.NONE for rule in self.rules)


Outputs = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor]


def lstm_layer(
    x: torch.Tensor,
    weight_ih: torch.Tensor,
    weight_hh: torch.Tensor,
    bias: torch.Tensor | None,
    initial_quantized: torch.Tensor | None,
    initial_cell: torch.Tensor | None,
    clips: torch.Tensor,
    layer: Layer,
) -> Outputs:
    """Run one layer, all its directions, in float32 on the CPU.

    Args:
        x: ``(T, B, I)``, quantized already where it is to be.
        weight_ih: ``(D, 4 * H, I)``, likewise; gates in the order i, f, g, o.
        weight_hh: ``(D, 4 * H, H)``, likewise.
        bias: ``(D, 4 * H)``, the sum of both biases, or None.
        initial_quantized: ``(D, B, H)``, hidden states that the first steps read; zeros if None.
        initial_cell: ``(D, B, H)``; zeros if None.
        clips: ``(D,)``, of the hidden states; it gets a gradient where a rule learns it.
        layer: the rest.

    Returns:
        The output ``(T, B, D * H)``, zeros past the lengths; the hidden states before quantization if
        ``layer.observed``; the final hidden states before quantization and the final cell states
        ``(D, B, H)``.

    Raises:
        RuntimeError: for sizes that do not fit.
        ValueError: for lengths or clips out of range.
    """
    return _LSTMLayer.apply(
        x, weight_ih, weight_hh, bias, initial_quantized, initial_cell, clips, layer
    )


class _LSTMLayer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight_ih: torch.Tensor,
        weight_hh: torch.Tensor,
        bias: torch.Tensor | None,
        initial_quantized: torch.Tensor | None,
        initial_cell: torch.Tensor | None,
        clips: torch.Tensor,
        layer: Layer,
    ) -> Outputs:
        batch = x.size(1)
        directions, rows, hidden_size = weight_hh.shape
        states = (directions, batch, hidden_size)
        layout = row_layout(x, layer.lengths)
        x = layout.take(x)
        flat_bias = None if bias is None else bias.flatten()
        gates = _input_gates(x, weight_ih.flatten(0, 1), flat_bias, layer.input_codes)
        gates = gates.view(-1, directions, rows)
        if initial_cell is None:
            initial_cell = x.new_zeros(states)
        initial_cell = initial_cell.contiguous()
        if initial_quantized is not None:
            initial_quantized = initial_quantized.contiguous()

        cell = x.new_empty(layout.rows, directions, hidden_size)
        output = torch.empty_like(cell)
        quantized = hidden = None
        if layer.quantized_output and not layer.is_float:
            quantized = output
            hidden = torch.empty_like(cell) if layer.observed else None
        else:
            hidden = output
        final_hidden, final_cell = x.new_empty(states), x.new_empty(states)
        codes = scale = None
        if layer.hidden_codes is not None:
            codes = layer.hidden_codes.codes
            scale = layer.hidden_codes.scale * (
                clips / clips.new_tensor(layer.max_codes)
            ).unsqueeze(1)
        training.lstm_forward(
            clips,
            layer,
            layout,
            gates=gates,
            weight_hh=weight_hh,
            weight_hh_codes=codes,
            weight_hh_scale=scale,
            initial_quantized=initial_quantized,
            initial_cell=initial_cell,
            hidden=hidden,
            quantized=quantized,
            cell=cell,
            final_hidden=final_hidden,
            final_cell=final_cell,
        )
        ctx.layer, ctx.layout, ctx.has_bias = layer, layout, bias is not None
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(
            x, weight_ih, weight_hh, gates, cell, output, initial_quantized, initial_cell, clips
        )
        observed = None
        if layer.observed and hidden is not None:
            observed = layout.give(hidden.flatten(1))
            observed = observed if quantized is not None else observed.clone()
            ctx.mark_non_differentiable(observed)
        return layout.give(output.flatten(1)), observed, final_hidden, final_cell

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(
        ctx: Any,
        output_gradient: torch.Tensor | None,
        _: Any,
        final_hidden_gradient: torch.Tensor | None,
        final_cell_gradient: torch.Tensor | None,
    ) -> Any:
        (
            x, weight_ih, weight_hh, gates, cell, output, initial_quantized, initial_cell, clips,
        ) = ctx.saved_tensors  # fmt: skip
        found = tracer_of(output_gradient, final_hidden_gradient, final_cell_gradient)
        if found is not None:
            raise RuntimeError(
                f"QuantLSTM: {found} cannot follow the fused kernels backward. Set QuantLSTM.fused = "
                "False (or ESPNET_QUANT4_TRAINING=loop) before the forward pass."
            )
        output_gradient, final_hidden_gradient, final_cell_gradient = (
            None if gradient is None else gradient.resolve_neg()
            for gradient in (output_gradient, final_hidden_gradient, final_cell_gradient)
        )
        layer: Layer = ctx.layer
        needs = ctx.needs_input_grad
        directions, rows, _ = weight_hh.shape

        layout: RowLayout = ctx.layout
        gate_gradients = workspace("gate_gradients", gates.shape)
        previous = workspace("previous", cell.shape)
        if final_cell_gradient is None:
            cell_gradient = torch.zeros_like(initial_cell)
        else:
            cell_gradient = final_cell_gradient.contiguous().clone()
        initial_gradient = None
        if initial_quantized is not None and needs[4]:
            initial_gradient = torch.empty_like(initial_quantized)
        bias_gradient = x.new_zeros(directions, rows)
        clip_gradient = x.new_zeros(directions, dtype=torch.float64)
        training.lstm_backward(
            clips,
            layer,
            layout,
            gates=gates,
            cell=cell,
            weight_hh=weight_hh,
            output=output,
            initial_quantized=initial_quantized,
            initial_cell=initial_cell,
            output_gradient=None if output_gradient is None else layout.take(output_gradient),
            final_hidden_gradient=(
                None if final_hidden_gradient is None else final_hidden_gradient.contiguous()
            ),
            cell_gradient=cell_gradient,
            gate_gradients=gate_gradients,
            previous=previous,
            initial_quantized_gradient=initial_gradient,
            bias_gradient=bias_gradient,
            clip_gradient=clip_gradient,
        )
        flat = gate_gradients.flatten(1)
        gradients = [None] * 8
        if needs[0]:
            gradients[0] = layout.give(flat @ weight_ih.flatten(0, 1))
        if needs[1]:
            gradients[1] = (flat.t() @ x).view(weight_ih.shape)
        if needs[2]:
            products = torch.empty_like(weight_hh)
            for direction in range(directions):
                torch.mm(
                    gate_gradients[:, direction].t(),
                    previous[:, direction],
                    out=products[direction],
                )
            gradients[2] = products
        if needs[3] and ctx.has_bias:
            gradients[3] = bias_gradient
        gradients[4] = initial_gradient
        if needs[5]:
            gradients[5] = cell_gradient
        if needs[6]:
            gradients[6] = clip_gradient.to(clips.dtype)
        return tuple(gradients)


def _input_gates(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, codes: InputCodes | None
) -> torch.Tensor:
    """Return ``x weight^T + bias``, ``(rows, D * 4 * H)``."""
    if codes is not None:
        gates = training.product_of_codes(x, codes, bias)
        # NaN has no code; among floats it stays visible.
        if gates is not None:
            return gates
    if bias is None:
        return x @ weight.t()
    return torch.addmm(bias, x, weight.t())
