"""The quantized recurrence with the gradient of its weight gathered over time.

Equal to `espnet_quant4.kernels.reference.lstm_recurrence`, and about a third cheaper to train:
left alone, autograd multiplies and adds up one ``(4H, H)`` weight gradient a step, where a single
product over all steps does. Backpropagation through time is otherwise autograd's. On other devices than
the CPU the cell is compiled; on the CPU `espnet_quant4.kernels.fused_lstm` is faster than both.
"""

from __future__ import annotations

from typing import Any

import torch

from espnet_quant4.kernels.compiled_cell import cell_for
from espnet_quant4.kernels.reference import Quantize, lstm_recurrence
from espnet_quant4.kernels.tracing import apply_function


class _GatherWeightGradient(torch.autograd.Function):
    """Identity on the input gates, which gives the recurrent weight its gradient on the way back.

    The gates of step t are ``input_gates[t] + h[t-1] W^T``, so the gradient that reaches
    ``input_gates`` is that of the sum, and ``dW = sum_t dgates[t]^T h[t-1]``.
    """

    @staticmethod
    def forward(
        ctx: Any, input_gates: torch.Tensor, weight_hh: torch.Tensor, previous: list[torch.Tensor]
    ) -> torch.Tensor:
        ctx.previous = previous
        ctx.weight_dtype = weight_hh.dtype
        return input_gates.view_as(input_gates)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        weight_gradient = None
        if ctx.needs_input_grad[1]:
            (hidden,) = ctx.previous  # (T, D, B, H)
            steps, directions, batch, gates = gradient.shape
            flat = gradient.transpose(0, 1).reshape(directions, steps * batch, gates)
            hidden = hidden.transpose(0, 1).reshape(directions, steps * batch, -1)
            weight_gradient = torch.bmm(flat.transpose(1, 2), hidden.to(flat.dtype))
            weight_gradient = weight_gradient.to(ctx.weight_dtype)
        return gradient, weight_gradient, None


def lstm_recurrence_for_training(
    input_gates: torch.Tensor,
    weight_hh: torch.Tensor,
    hidden_state: torch.Tensor,
    cell_state: torch.Tensor,
    quantize_hidden: Quantize,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Run the recurrence; arguments and results are those of ``lstm_recurrence``.

    A second derivative with respect to ``weight_hh`` is not available.
    """
    previous: list[torch.Tensor] = []
    gates = apply_function(_GatherWeightGradient, input_gates, weight_hh, previous)
    outputs, quantized, cells = lstm_recurrence(
        gates,
        weight_hh.detach(),
        hidden_state,
        cell_state,
        quantize_hidden,
        cell_for(input_gates.device),
    )
    with torch.no_grad():
        first = quantize_hidden(hidden_state).unsqueeze(0)
        previous.append(torch.cat([first, quantized[:-1]]).detach())
    return outputs, quantized, cells
