"""A stack of LSTM layers on codes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from espnet_quant4.int4.int4_module import (
    Description,
    Int4Module,
    plain_input,
)
from espnet_quant4.kernels import int4_reference, native
from espnet_quant4.kernels.int4_reference import DirectionCodes
from espnet_quant4.kernels.native import NativeLSTM
from espnet_quant4.kernels.tracing import graph_break, refuse_tracing
from espnet_quant4.nn import QuantLSTM
from espnet_quant4.nn.lstm import HAS_LENGTHS, States, check_lengths, direction_names, pack_like
from espnet_quant4.quantizers import Quantizer

Layers = list[list[DirectionCodes]]


@dataclass(frozen=True)
class Kernels:
    """What computes a stack: the C++ kernels, or where there are none the codes for PyTorch."""

    native: NativeLSTM | None
    layers: Layers
    input_clip: float
    input_max: int


class Int4LSTM(Int4Module):
    """LSTM whose products are sums of integers; see the integer contract in docs/design.md.

    Buffers, for a layer and direction ``S`` such as ``l0`` or ``l1_reverse``: ``weight_ih_S`` and
    ``weight_hh_S`` with their scales, ``bias_S`` (both biases added), ``hidden_S_clip``; and
    ``input_l0_clip``.

    Args:
        input_size: width of the input.
        hidden_size: cells per direction.
        num_layers: number of layers.
        batch_first: as for ``torch.nn.LSTM``.
        bidirectional: whether layers have a backward direction.
        bias: whether the float model had biases; kept for those who ask, as are ``dropout`` (which
            changes nothing in inference) and ``proj_size`` (always 0).
        dropout: of the float model.
    """

    mode = "LSTM"
    proj_size = 0

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        batch_first: bool = False,
        bidirectional: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.batch_first, self.bidirectional = batch_first, bidirectional
        self.bias, self.dropout = bias, dropout
        self.directions = 2 if bidirectional else 1
        for name in self.direction_names():
            empty = torch.empty(4 * hidden_size, dtype=torch.float32, device="meta")
            self.register_buffer(f"bias_{name}", empty)

    def direction_names(self) -> list[str]:
        """Return the names of all layers and directions: ``l0``, ``l0_reverse``, ``l1``, ...."""
        return all_direction_names(self)

    def flatten_parameters(self) -> None:
        """Do nothing: the kernels' order is made when it is needed."""

    def described(self) -> dict[str, tuple[int, int] | None]:
        rows, found = 4 * self.hidden_size, dict[str, tuple[int, int] | None]()
        for name in self.direction_names():
            is_first = name in direction_names(0, self.bidirectional)
            columns = self.input_size if is_first else self.directions * self.hidden_size
            found[f"weight_ih_{name}"] = (rows, columns)
            found[f"weight_hh_{name}"] = (rows, self.hidden_size)
            found[f"hidden_{name}_clip"] = None
        return {**found, "input_l0_clip": None}

    @staticmethod
    def needed(lstm: QuantLSTM) -> dict[str, Quantizer | None]:
        """Return the quantizers that codes are made with, by tensor; None where that is in float."""
        found = {
            f"{tensor}_{name}": lstm.quantizer(name, tensor)
            for name in all_direction_names(lstm)
            for tensor in ("weight_ih", "weight_hh", "hidden")
        }
        return {**found, "input_l0": lstm.quantizer("l0", "input")}

    @classmethod
    def _shaped_like(cls, lstm: QuantLSTM) -> Int4LSTM:
        return cls(
            lstm.input_size,
            lstm.hidden_size,
            lstm.num_layers,
            lstm.batch_first,
            lstm.bidirectional,
            lstm.bias,
            lstm.dropout,
        )

    @classmethod
    def from_quantized(cls, lstm: QuantLSTM) -> Int4LSTM:
        """Return the codes of a trained stack."""
        built = cls._shaped_like(lstm)
        for name in built.direction_names():
            for tensor in ("weight_ih", "weight_hh"):
                quantizer = lstm.quantizer(name, tensor)
                assert quantizer is not None
                weight = getattr(lstm, f"{tensor}_{name}")
                built.add_weight(f"{tensor}_{name}", quantizer, weight)
            hidden = lstm.quantizer(name, "hidden")
            assert hidden is not None
            built.add_activation(f"hidden_{name}", hidden)
            bias = torch.zeros(4 * lstm.hidden_size, dtype=torch.float32, device="cpu")
            if lstm.bias:
                for kind in ("bias_ih", "bias_hh"):
                    bias = bias + getattr(lstm, f"{kind}_{name}").detach().float().cpu()
            setattr(built, f"bias_{name}", bias)
        x = lstm.quantizer("l0", "input")
        assert x is not None
        built.add_activation("input_l0", x)
        return built

    @classmethod
    def empty_like(cls, lstm: QuantLSTM, descriptions: dict[str, Description]) -> Int4LSTM:
        """Return a stack without content, to be filled by ``load_state_dict(..., assign=True)``."""
        built = cls._shaped_like(lstm)
        built.add_empty(descriptions)
        return built

    # ---- kernels ----------------------------------------------------------------------------

    def make_kernels(self) -> Kernels:
        layers, packed = self.layers(), None
        if native.is_available():
            packed, layers = NativeLSTM.from_layers(layers, self.input_size), []
        return Kernels(packed, layers, self.clip("input_l0"), self.max_code("input_l0"))

    def layers(self) -> Layers:
        """Return the codes and scales of all layers."""
        layers: Layers = []
        inputs = ["input_l0"]
        for layer in range(self.num_layers):
            here = direction_names(layer, self.bidirectional)
            layers.append([self._direction(name, inputs) for name in here])
            inputs = [f"hidden_{name}" for name in here]
        return layers

    def _direction(self, name: str, inputs: list[str]) -> DirectionCodes:
        scales = [self.activation_scale(x) for x in inputs]
        if all(bool(scale == scales[0]) for scale in scales):
            scales = scales[:1]
        row_scale = self.row_scale(f"weight_ih_{name}")
        hidden = f"hidden_{name}"
        return DirectionCodes(
            weight_ih=self.codes(f"weight_ih_{name}"),
            weight_ih_max=self.max_code(f"weight_ih_{name}"),
            scale_ih=torch.stack([scale * row_scale for scale in scales]),
            weight_hh=self.codes(f"weight_hh_{name}"),
            weight_hh_max=self.max_code(f"weight_hh_{name}"),
            scale_hh=self.activation_scale(hidden) * self.row_scale(f"weight_hh_{name}"),
            bias=getattr(self, f"bias_{name}").float().contiguous(),
            hidden_clip=self.clip(hidden),
            hidden_max=self.max_code(hidden),
        )

    # ---- forward ----------------------------------------------------------------------------

    @graph_break
    def forward(
        self,
        input: torch.Tensor | PackedSequence,
        hx: States | None = None,
        lengths: torch.Tensor | None = None,
        final_states: bool = True,
    ) -> tuple[torch.Tensor | PackedSequence, States | None]:
        """Run the layers; arguments, results and errors are those of ``QuantLSTM.forward``.

        Outputs have `output_dtype`, states are float32. A NaN in the input is an error, since it has no
        code.
        """
        refuse_tracing("Int4LSTM", lengths)
        if isinstance(input, PackedSequence):
            if lengths is not None:
                raise ValueError(HAS_LENGTHS)
            padded, lengths = pad_packed_sequence(input, batch_first=self.batch_first)
            output, states, _ = self.run(padded, hx, lengths)
            packed = pack_like(output.to(self.output_dtype), input, self.batch_first)
            return packed, states
        if lengths is not None:
            lengths = check_lengths(input, lengths, self.batch_first)
        output, states, _ = self.run(input, hx, lengths)
        return output.to(self.output_dtype), states if final_states else None

    def run(
        self,
        input: torch.Tensor,
        hx: States | None = None,
        lengths: torch.Tensor | None = None,
        with_codes: bool = False,
    ) -> tuple[torch.Tensor, States, torch.Tensor | None]:
        """Run the layers on padded input.

        Args:
            input: as for `forward`, not packed.
            hx: initial states.
            lengths: ``(B,)``, checked.
            with_codes: whether to return the codes of every layer.

        Returns:
            Output and final states in the form of the input, float32, and with ``with_codes`` the
            codes ``(layers, T, B, directions * H)`` int8, which are 0 past each length.
        """
        # Written for few calls of PyTorch: in a streaming step each costs some percent.
        x = plain_input(input, "Int4LSTM")
        shape = x.shape
        if len(shape) == 3:
            batch_first = self.batch_first
            batch, frames, width = shape if batch_first else (shape[1], shape[0], shape[2])
        elif len(shape) == 2:
            batch_first, batch, (frames, width) = False, 1, shape
        else:
            raise ValueError(f"LSTM: Expected input to be 2D or 3D, got {len(shape)}D instead")
        if width != self.input_size:
            raise RuntimeError(
                "input.size(-1) must be equal to input_size. "
                f"Expected {self.input_size}, got {width}"
            )
        if frames == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        size = self.directions * self.hidden_size
        state_shape: tuple[int, ...] = (self.num_layers * self.directions, batch, self.hidden_size)
        out_shape: tuple[int, ...] = (shape[0], shape[1], size)
        if len(shape) == 2:
            state_shape = (state_shape[0], state_shape[2])
            out_shape = (frames, size)
        initial = None if hx is None else self._initial(hx, state_shape)
        kernels = self.kernels()
        if kernels.native is None:
            return self._run_reference(x, initial, lengths, batch_first, state_shape)

        lengths_pointer = codes_pointer = codes = None
        if lengths is None:
            out = x.new_empty(out_shape)
        else:
            out = x.new_zeros(out_shape)
            lengths = lengths.to("cpu", torch.int64).contiguous()
            lengths_pointer = lengths.data_ptr()
        if with_codes:
            codes = x.new_zeros(self.num_layers, frames, batch, size, dtype=torch.int8)
            codes_pointer = codes.data_ptr()
        hidden, cell = x.new_empty(state_shape), x.new_empty(state_shape)
        kernels.native.call(
            x.data_ptr(),
            frames,
            batch,
            width if batch_first else batch * width,
            frames * width if batch_first else width,
            kernels.input_clip,
            kernels.input_max,
            lengths_pointer,
            None if initial is None else initial[0].data_ptr(),
            None if initial is None else initial[1].data_ptr(),
            hidden.data_ptr(),
            cell.data_ptr(),
            out.data_ptr(),
            size if batch_first else batch * size,
            frames * size if batch_first else size,
            codes_pointer,
            torch.get_num_threads(),
        )
        return out, (hidden, cell), codes

    def _run_reference(
        self,
        x: torch.Tensor,
        initial: States | None,
        lengths: torch.Tensor | None,
        batch_first: bool,
        state_shape: tuple[int, ...],
    ) -> tuple[torch.Tensor, States, torch.Tensor]:
        single = x.dim() == 2
        by_time = x.unsqueeze(1) if single else x.transpose(0, 1) if batch_first else x
        batch = by_time.size(1)
        if initial is None:
            initial = (x.new_zeros(state_shape), x.new_zeros(state_shape))
        hidden, cell = (state.view(-1, batch, self.hidden_size) for state in initial)
        kernels = self.kernels()
        out, hidden, cell, codes = int4_reference.lstm(
            kernels.layers, by_time, kernels.input_clip, kernels.input_max, hidden, cell, lengths
        )
        out = out.squeeze(1) if single else out.transpose(0, 1).contiguous() if batch_first else out
        return out, (hidden.view(state_shape), cell.view(state_shape)), codes

    def _initial(self, hx: States, shape: tuple[int, ...]) -> States:
        hidden, cell = hx
        for number, state in enumerate(hx):
            if state.shape != shape:
                raise RuntimeError(
                    f"Expected hidden[{number}] size {shape}, got {list(state.shape)}"
                )
        return plain_input(hidden, "Int4LSTM"), plain_input(cell, "Int4LSTM")

    def extra_repr(self) -> str:
        bits = sorted({d["bits"] for d in self.descriptions.values() if d["role"] == "weight"})
        return (
            f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, "
            f"bidirectional={self.bidirectional}, weight_bits={bits}"
        )


def all_direction_names(lstm: QuantLSTM | Int4LSTM) -> list[str]:
    """Return the names of all layers and directions of a stack, in the order of its states."""
    return [
        name
        for layer in range(lstm.num_layers)
        for name in direction_names(layer, lstm.bidirectional)
    ]
