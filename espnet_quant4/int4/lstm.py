"""A stack of LSTM layers on codes."""

from __future__ import annotations

import torch
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from espnet_quant4.int4.int4_module import (
    Description,
    Int4Module,
    as_input,
    is_native,
    is_ready,
    quantizer_of,
)
from espnet_quant4.kernels import int4_reference
from espnet_quant4.kernels.int4_reference import DirectionCodes
from espnet_quant4.kernels.native import NativeLSTM
from espnet_quant4.nn import QuantLSTM
from espnet_quant4.nn.lstm import HAS_LENGTHS, States, check_lengths, pack_like

Layers = list[list[DirectionCodes]]


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
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        batch_first: bool = False,
        bidirectional: bool = False,
    ):
        super().__init__()
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.batch_first, self.bidirectional = batch_first, bidirectional
        for name in self.direction_names():
            self.register_buffer(f"bias_{name}", torch.empty(4 * hidden_size, device="meta"))

    def direction_names(self) -> list[str]:
        """Return the names of all layers and directions: ``l0``, ``l0_reverse``, ``l1``, ...."""
        endings = ("", "_reverse") if self.bidirectional else ("",)
        return [f"l{layer}{ending}" for layer in range(self.num_layers) for ending in endings]

    @staticmethod
    def can_convert(lstm: QuantLSTM) -> bool:
        """Whether all weights, the input and all hidden states are quantized, with clips set."""
        names = [f"l{i}{end}" for i in range(lstm.num_layers)
                 for end in (("", "_reverse") if lstm.bidirectional else ("",))]  # fmt: skip
        tensors = ("weight_ih", "weight_hh", "hidden")
        needed = [quantizer_of(lstm, name, tensor) for name in names for tensor in tensors]
        return is_ready([*needed, quantizer_of(lstm, "l0", "input")])

    @classmethod
    def _shaped_like(cls, lstm: QuantLSTM) -> Int4LSTM:
        return cls(
            lstm.input_size, lstm.hidden_size, lstm.num_layers, lstm.batch_first, lstm.bidirectional
        )

    @classmethod
    def from_quantized(cls, lstm: QuantLSTM) -> Int4LSTM:
        """Return the codes of a trained stack."""
        built = cls._shaped_like(lstm)
        for name in built.direction_names():
            for tensor in ("weight_ih", "weight_hh"):
                quantizer = quantizer_of(lstm, name, tensor)
                assert quantizer is not None
                weight = getattr(lstm, f"{tensor}_{name}")
                built.add_weight(f"{tensor}_{name}", quantizer, weight)
            hidden = quantizer_of(lstm, name, "hidden")
            assert hidden is not None
            built.add_activation(f"hidden_{name}", hidden)
            bias = torch.zeros(4 * lstm.hidden_size)
            if lstm.bias:
                for kind in ("bias_ih", "bias_hh"):
                    bias = bias + getattr(lstm, f"{kind}_{name}").detach().float().cpu()
            setattr(built, f"bias_{name}", bias)
        x = quantizer_of(lstm, "l0", "input")
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

    def make_kernels(self) -> NativeLSTM | Layers:
        layers = self.layers()
        if not is_native():
            return layers
        directions = len(layers[0])
        built = NativeLSTM(self.num_layers, directions, self.input_size, self.hidden_size)
        for layer, entries in enumerate(layers):
            for d, e in enumerate(entries):
                built.set_direction(
                    layer, d, e.weight_ih, e.weight_ih_max, e.scale_ih, e.weight_hh,
                    e.weight_hh_max, e.scale_hh, e.bias, e.hidden_clip, e.hidden_max,
                )  # fmt: skip
        return built

    def layers(self) -> Layers:
        """Return the codes and scales of all layers."""
        names = self.direction_names()
        directions = 2 if self.bidirectional else 1
        layers: Layers = []
        inputs = ["input_l0"]
        for first in range(0, len(names), directions):
            here = names[first : first + directions]
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

    @torch.no_grad()
    def forward(
        self,
        input: torch.Tensor | PackedSequence,
        hx: States | None = None,
        lengths: torch.Tensor | None = None,
        final_states: bool = True,
    ) -> tuple[torch.Tensor | PackedSequence, States | None]:
        """Run the layers; arguments, results and errors are those of ``QuantLSTM.forward``.

        Outputs and states are float32. A NaN in the input is an error, since it has no code.
        """
        if isinstance(input, PackedSequence):
            if lengths is not None:
                raise ValueError(HAS_LENGTHS)
            padded, lengths = pad_packed_sequence(input, batch_first=self.batch_first)
            output, states, _ = self.run(padded, hx, lengths)
            return pack_like(output, input, self.batch_first), states
        if lengths is not None:
            lengths = check_lengths(input, lengths, self.batch_first)
        output, states, _ = self.run(input, hx, lengths)
        return output, states if final_states else None

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
            Output and final states in the form of the input, and with ``with_codes`` the codes
            ``(layers, T, B, directions * H)`` int8, which are 0 past each length.
        """
        x = as_input(input, "Int4LSTM")
        if x.dim() not in (2, 3):
            raise ValueError(f"LSTM: Expected input to be 2D or 3D, got {x.dim()}D instead")
        single = x.dim() == 2
        x = x.unsqueeze(1) if single else x.transpose(0, 1) if self.batch_first else x
        frames, batch, width = x.shape
        if width != self.input_size:
            raise RuntimeError(
                "input.size(-1) must be equal to input_size. "
                f"Expected {self.input_size}, got {width}"
            )
        if frames == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        directions = 2 if self.bidirectional else 1
        hidden, cell = self._initial(hx, batch, single)
        if x.stride(-1) != 1:
            x = x.contiguous()
        size = directions * self.hidden_size
        if lengths is not None:
            lengths = lengths.to("cpu", torch.int64).contiguous()
        shape = (batch, frames, size) if self.batch_first and not single else (frames, batch, size)
        out = torch.empty(shape) if lengths is None else torch.zeros(shape)
        by_time = out.transpose(0, 1) if self.batch_first and not single else out
        kernels, clip, largest = self.kernels(), self.clip("input_l0"), self.max_code("input_l0")
        codes = None
        if isinstance(kernels, NativeLSTM):
            if with_codes:
                codes = torch.zeros(self.num_layers, frames, batch, size, dtype=torch.int8)
            threads = torch.get_num_threads()
            kernels.run(x, clip, largest, hidden, cell, by_time, lengths, codes, threads)
        else:
            values, hidden, cell, codes = int4_reference.lstm(
                kernels, x, clip, largest, hidden, cell, lengths
            )
            by_time.copy_(values)
        if single:
            return out.squeeze(1), (hidden.squeeze(1), cell.squeeze(1)), codes
        return out, (hidden, cell), codes

    def _initial(
        self, hx: States | None, batch: int, single: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return copies of the initial states, which the kernels overwrite."""
        count = self.num_layers * (2 if self.bidirectional else 1)
        shape = (count, batch, self.hidden_size)
        if hx is None:
            return torch.zeros(shape), torch.zeros(shape)
        states = []
        for number, state in enumerate(hx):
            state = as_input(state, "Int4LSTM").unsqueeze(1) if single else as_input(state, "Int4LSTM")
            if tuple(state.shape) != shape:
                raise RuntimeError(
                    f"Expected hidden[{number}] size {shape}, got {list(state.shape)}"
                )
            states.append(state.clone(memory_format=torch.contiguous_format))
        return states[0], states[1]

    def extra_repr(self) -> str:
        bits = sorted({d["bits"] for d in self.descriptions.values() if d["role"] == "weight"})
        return (
            f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, "
            f"bidirectional={self.bidirectional}, weight_bits={bits}"
        )
