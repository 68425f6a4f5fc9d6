"""``torch.nn.LSTM`` with quantized weights, inputs and hidden states."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from espnet_quant4.kernels.recurrence import lstm_recurrence_for_training
from espnet_quant4.kernels.reference import lstm_recurrence, reverse_padded
from espnet_quant4.nn.fused_layer import (
    fused_by_default,
    hidden_form,
    quantize_initial,
    run_fused,
    suits_kernel,
    wants_hidden_states,
)
from espnet_quant4.nn.quantized_module import (
    QuantizedModule,
    Specification,
    build_quantizer,
    get_quantizer,
    in_dtype_of,
    prepare_activation,
    quantize_activation,
    quantize_weight,
)
from espnet_quant4.quantizers import Quantizer
from espnet_quant4.quantizers.base import widened
from espnet_quant4.scheme import BOUND_OF_STATES

States = tuple[torch.Tensor, torch.Tensor]

WEIGHTS = ("weight_ih", "weight_hh")

HAS_LENGTHS = "lengths: a PackedSequence has lengths of its own; pass None."


class QuantLSTM(QuantizedModule, torch.nn.LSTM):
    """LSTM that quantizes weights, the first layer's input and every hidden state.

    Takes the arguments of ``torch.nn.LSTM`` and has its parameter names; ``quantizers`` holds what
    a scheme has set, per layer ``l0``, ``l1``, ... and for the backward direction ``l0_reverse``,
    ....

    A hidden state is quantized once; the same codes feed the recurrence and the next layer. What
    the last layer puts out, and the final hidden states, are the values before quantization, so
    that a reader may quantize them by its own scheme and a carried state loses nothing.

    Attributes:
        fused: whether layers on the CPU run through the fused C++ kernels (default) or by the reference
            loop. What has no fused form takes the loop by itself.

    Raises:
        ValueError: for ``proj_size``, which has no quantized form.
    """

    fused = fused_by_default()

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.proj_size:
            raise ValueError(
                f"QuantLSTM: proj_size={self.proj_size} has no quantized form; the valid choice is "
                "0. Put a QuantLinear behind the layer."
            )
        self._init_quantizers()

    # ---- quantizers -------------------------------------------------------------------------

    def quant_sites(self) -> list[tuple[str, str]]:
        return [(f"l{layer}", "lstm") for layer in range(self.num_layers)]

    def bound_of_input(self, suffix: str) -> float | None:
        # Deeper layers read hidden states.
        return self.input_bound if suffix == "l0" else BOUND_OF_STATES

    def _dropout_before(self, layer: int) -> float:
        """Return the probability of the dropout that is active in front of a layer."""
        if layer == 0:
            return self.dropout_of_input
        return self.dropout if self.training else 0.0

    def _directions(self, layer: int) -> list[str]:
        return direction_names(layer, self.bidirectional)

    def set_quantizers(
        self, suffix: str, specifications: Mapping[str, Specification | None]
    ) -> None:
        layer = int(suffix[1:])
        rows = 4 * self.hidden_size
        # Deeper layers read the codes of the hidden state below them, if it has any.
        reads_codes = layer > 0 and self._hidden_quantizers(layer - 1)[0] is not None
        for name in self._directions(layer):
            built = {
                "weight_ih": build_quantizer(specifications.get("weight_ih"), "weight", rows, 4),
                "weight_hh": build_quantizer(specifications.get("weight_hh"), "weight", rows, 4),
                "hidden": build_quantizer(specifications.get("hidden"), "activation", 1),
            }
            if name == suffix and not reads_codes:
                built["input"] = build_quantizer(specifications.get("input"), "activation", 1)
            present = {tensor: q for tensor, q in built.items() if q is not None}
            self.quantizers[name] = torch.nn.ModuleDict(present)
        self.quantizers.to(self.weight_ih_l0.device)
        self.quantizers.train(self.training)

    def quantizer(self, direction: str, tensor: str) -> Quantizer | None:
        """Return the quantizer of a tensor of one direction, such as ``l0_reverse``, or None."""
        if direction not in self.quantizers:
            return None
        return get_quantizer(self.quantizers[direction], tensor)

    def _hidden_quantizers(self, layer: int) -> list[Quantizer | None]:
        return [self.quantizer(direction, "hidden") for direction in self._directions(layer)]

    @property
    def is_float(self) -> bool:
        """Whether no tensor of this module is quantized."""
        return all(len(tensors) == 0 for tensors in self.quantizers.values())

    # ---- forward ----------------------------------------------------------------------------

    def forward(
        self,
        input: torch.Tensor | PackedSequence,
        hx: States | None = None,
        lengths: torch.Tensor | None = None,
        final_states: bool = True,
    ) -> tuple[torch.Tensor | PackedSequence, States | None]:
        """Run the layers.

        Args:
            input: as for ``torch.nn.LSTM``: ``(T, B, I)``, ``(B, T, I)`` with ``batch_first``,
                ``(T, I)`` for one sequence, or a ``PackedSequence``.
            hx: initial hidden and cell states, each ``(layers * directions, B, H)``; zeros if None.
            lengths: ``(B,)`` int64, each in ``1..T``, in any order. The backward direction starts
                at each sequence's own end, the final states are those at its own end, and outputs
                past it are zero, as with a ``PackedSequence``.
            final_states: False where the caller has no use for them. On a batch of unequal lengths
                a float recurrence then runs on padded input, where PyTorch's CPU kernel is about
                three times faster than on a ``PackedSequence``.

        Returns:
            The output in the form of the input, ``directions * H`` wide, and the final states, or
            None without ``final_states``.

        Raises:
            RuntimeError, ValueError: for sizes that do not fit, in the words of ``torch.nn.LSTM``;
                ValueError for a length of 0 or over ``T``, or ``lengths`` with a ``PackedSequence``.
        """
        result = self.run_inference(input, hx, lengths=lengths)
        if result is not NotImplemented:
            return result
        if isinstance(input, PackedSequence):
            if lengths is not None:
                raise ValueError(HAS_LENGTHS)
            if self.is_float:
                return super().forward(input, hx)
            padded, lengths = pad_packed_sequence(input, batch_first=self.batch_first)
            output, states = self._forward_layers(padded, hx, lengths, True)
            return pack_like(output, input, self.batch_first), states
        if lengths is not None:
            lengths = check_lengths(input, lengths, self.batch_first)
            if bool((lengths == input.size(1 if self.batch_first else 0)).all()):
                lengths = None
        # A second derivative needs PyTorch's own; who wants one sets `fused` to False.
        if not self.is_float or suits_kernel([input, self.weight_ih_l0], 1, self.fused):
            return self._forward_layers(input, hx, lengths, final_states)
        if lengths is None:
            return super().forward(input, hx)
        if not final_states:
            return self._forward_layers(input, hx, lengths, False)
        frames = input.size(1 if self.batch_first else 0)
        packed = pack_padded_sequence(
            input, lengths.cpu(), batch_first=self.batch_first, enforce_sorted=False
        )
        output, states = super().forward(packed, hx)
        output, _ = pad_packed_sequence(output, batch_first=self.batch_first, total_length=frames)
        return output, states

    def _forward_layers(
        self,
        input: torch.Tensor,
        hx: States | None,
        lengths: torch.Tensor | None,
        final_states: bool,
    ) -> tuple[torch.Tensor, States | None]:
        if input.dim() not in (2, 3):
            raise ValueError(f"LSTM: Expected input to be 2D or 3D, got {input.dim()}D instead")
        single = input.dim() == 2
        x = input.unsqueeze(1) if single else input.transpose(0, 1) if self.batch_first else input
        frames, batch, _ = x.shape
        self.check_input(x, None)
        if frames == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        if lengths is not None:
            lengths = lengths.to(x.device)
        directions = 2 if self.bidirectional else 1
        has_states = hx is not None
        if hx is None:
            zeros = x.new_zeros(self.num_layers * directions, batch, self.hidden_size)
            # Under autocast the input may be narrow; states never are.
            hidden = cell = in_dtype_of(x, widened(zeros))
        else:
            hidden, cell = (state.unsqueeze(1) if single else state for state in hx)
            as_given = x.transpose(0, 1) if self.batch_first else x
            self.check_forward_args(as_given, (hidden, cell), None)

        final_hidden, final_cell = [], []
        for layer in range(self.num_layers):
            here = slice(layer * directions, (layer + 1) * directions)
            output, x, (last_hidden, last_cell) = self._layer(
                layer, x, lengths, (hidden[here], cell[here]), final_states, has_states
            )
            final_hidden.append(last_hidden)
            final_cell.append(last_cell)
            if self.dropout and layer < self.num_layers - 1:
                x = torch.nn.functional.dropout(x, self.dropout, self.training)
        if single:
            output = output.squeeze(1)
        elif self.batch_first:
            output = output.transpose(0, 1)
        if not final_states:
            return output, None
        states = (torch.cat(final_hidden), torch.cat(final_cell))
        if single:
            states = (states[0].squeeze(1), states[1].squeeze(1))
        return output, states

    def _layer(
        self,
        layer: int,
        x: torch.Tensor,
        lengths: torch.Tensor | None,
        states: States,
        final_states: bool,
        has_states: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, States]:
        """Run one layer on ``(T, B, I)``, from states ``(directions, B, H)``.

        Without ``has_states`` these are zeros.

        Returns:
            Outputs before and after quantization ``(T, B, directions * H)``, with zeros past the
            lengths, and the final states, which without ``final_states`` need not be right.
        """
        frames, batch, _ = x.shape
        valid = None
        if lengths is not None:
            valid = torch.arange(frames, device=x.device).unsqueeze(1) < lengths
        dropout = self._dropout_before(layer)
        x = quantize_activation(self.quantizer(f"l{layer}", "input"), x, valid, dropout)

        names = self._directions(layer)
        quantizers = self._hidden_quantizers(layer)
        parameters = [self._parameters_of(name) for name in names]
        tensors = (x, *states, *(weight for each in parameters for weight in each))
        if suits_kernel(tensors, frames, self.fused) and self._hidden_is_set(quantizers):
            form = hidden_form(quantizers, states[0][0])
            if form is not None:
                initial = (None, None)
                if has_states:
                    initial = (quantize_initial(states[0], quantizers), states[1])
                output, observed, *ends = run_fused(
                    x,
                    parameters,
                    [[self.quantizer(name, weight) for weight in WEIGHTS] for name in names],
                    initial,
                    quantizers,
                    form,
                    self._readers(layer),
                    None if lengths is None else lengths.long().contiguous(),
                    layer < self.num_layers - 1,
                )
                self._observe_hidden(quantizers, observed, valid)
                return output, output, (ends[0], ends[1])
        weights = [self._quantized(name) for name in names]
        if all(q is None for q in quantizers) and (lengths is None or not final_states):
            outputs, states = self._float_recurrence(names, x, weights, lengths, states)
            joined = join_directions(outputs, lengths)
            return joined, joined, states

        input_gates = []
        for name, (weight_ih, _, *biases) in zip(names, weights, strict=False):
            bias = biases[0] + biases[1] if biases else None
            gates = torch.nn.functional.linear(x, weight_ih, bias)
            input_gates.append(reverse_in_time(gates, lengths) if is_backward(name) else gates)
        weight_hh = torch.stack([weight_hh for _, weight_hh, *_ in weights])
        arguments = (torch.stack(input_gates, dim=1), weight_hh, *states)
        if not torch.is_autocast_enabled(x.device.type):
            # In half precision a cell that adds up many small steps would stand still.
            arguments = tuple(widened(tensor) for tensor in arguments)
        self._prepare_hidden(quantizers, arguments, valid)
        outputs, codes, cells = lstm_recurrence_for_training(
            *arguments, _quantize_hidden(quantizers)
        )
        for direction, quantizer in enumerate(quantizers):
            if quantizer is not None:
                prepare_activation(quantizer, outputs[:, direction], valid)

        if lengths is None:
            states = (outputs[-1], cells[-1])
        else:
            at = (lengths - 1, slice(None), torch.arange(batch, device=x.device))
            states = (outputs[at].transpose(0, 1), cells[at].transpose(0, 1))
        return (
            in_dtype_of(x, join_directions(outputs.unbind(1), lengths)),
            in_dtype_of(x, join_directions(codes.unbind(1), lengths)),
            (in_dtype_of(x, states[0]), in_dtype_of(x, states[1])),
        )

    def _parameters_of(self, name: str) -> list[torch.Tensor]:
        """Return the parameters of a layer and direction in the order of ``torch.lstm``."""
        tensors = [*WEIGHTS, "bias_ih", "bias_hh"] if self.bias else WEIGHTS
        return [getattr(self, f"{tensor}_{name}") for tensor in tensors]

    def _quantized(self, name: str) -> list[torch.Tensor]:
        """Return the same with weights after quantization."""
        weights = self._parameters_of(name)
        for position, tensor in enumerate(WEIGHTS):
            weights[position] = quantize_weight(self.quantizer(name, tensor), weights[position])
        return weights

    def _float_recurrence(
        self,
        names: list[str],
        x: torch.Tensor,
        weights: list[list[torch.Tensor]],
        lengths: torch.Tensor | None,
        states: States,
    ) -> tuple[list[torch.Tensor], States]:
        """Run PyTorch's own recurrence on padded input, a call for each direction."""
        outputs, hidden, cell = [], [], []
        for direction, name in enumerate(names):
            here = slice(direction, direction + 1)
            output, last_hidden, last_cell = torch.lstm(
                reverse_in_time(x, lengths) if is_backward(name) else x,
                (states[0][here], states[1][here]),
                weights[direction],
                self.bias,
                1,
                0.0,
                self.training,
                False,
                False,
            )
            outputs.append(output)
            hidden.append(last_hidden)
            cell.append(last_cell)
        return outputs, (torch.cat(hidden), torch.cat(cell))

    def _readers(self, layer: int) -> list[Quantizer | None]:
        """Return what quantized the input of a layer: itself, or each direction below."""
        # Dropout scales what is on the grid, and so takes it off.
        if self._dropout_before(layer) > 0:
            return []
        reader = self.quantizer(f"l{layer}", "input")
        if layer == 0 or reader is not None:
            return [reader]
        below = self._hidden_quantizers(layer - 1)
        # One that follows the data has moved on since it rounded what this layer reads.
        return [] if wants_hidden_states(below) else below

    @staticmethod
    def _hidden_is_set(quantizers: list[Quantizer | None]) -> bool:
        return all(q is None or q.calibrating or q.is_calibrated for q in quantizers)

    def _observe_hidden(
        self,
        quantizers: list[Quantizer | None],
        hidden: torch.Tensor | None,
        valid: torch.Tensor | None,
    ) -> None:
        """Show ``(T, B, directions * H)`` hidden states to the quantizers that take note of them."""
        if hidden is None:
            return
        for quantizer, mine in zip(quantizers, hidden.chunk(len(quantizers), -1), strict=True):
            if quantizer is not None:
                prepare_activation(quantizer, mine, valid)

    def _prepare_hidden(
        self,
        quantizers: list[Quantizer | None],
        arguments: tuple[torch.Tensor, ...],
        valid: torch.Tensor | None,
    ) -> None:
        """Set the clips of hidden states that were never calibrated from a float run."""
        unset = [
            (direction, quantizer)
            for direction, quantizer in enumerate(quantizers)
            if quantizer is not None and not quantizer.calibrating and not quantizer.is_calibrated
        ]
        if not unset:
            return
        with torch.no_grad():
            gates, weight_hh, hidden, cell = arguments
            outputs, _, _ = lstm_recurrence(gates, weight_hh, hidden, cell, _identity)
        for direction, quantizer in unset:
            prepare_activation(quantizer, outputs[:, direction], valid)


def check_lengths(input: torch.Tensor, lengths: torch.Tensor, batch_first: bool) -> torch.Tensor:
    """Return the lengths of a padded batch as a tensor.

    Raises:
        ValueError: where they do not fit the batch.
    """
    # A tensor as it is: as_tensor would move it to PyTorch's default device.
    lengths = lengths if isinstance(lengths, torch.Tensor) else torch.as_tensor(lengths)
    batch, frames = (0, 1) if batch_first else (1, 0)
    if input.dim() != 3 or lengths.shape != (input.size(batch),):
        raise ValueError(
            f"lengths: shape {tuple(lengths.shape)} for an input of {tuple(input.shape)}; valid "
            "is one length for each sequence of a 3-D input."
        )
    wrong = ((lengths < 1) | (lengths > input.size(frames))).nonzero().flatten().tolist()
    if wrong:
        raise ValueError(
            f"lengths: {[int(lengths[i]) for i in wrong]} at batch positions {wrong}; valid are "
            f"1 to {input.size(frames)}. Leave empty sequences out of the batch."
        )
    return lengths


def pack_like(padded: torch.Tensor, like: PackedSequence, batch_first: bool) -> PackedSequence:
    """Pack a padded batch in the order and with the lengths of another."""
    lengths = pad_packed_sequence(like)[1]
    if like.sorted_indices is not None:
        padded = padded.index_select(0 if batch_first else 1, like.sorted_indices)
        lengths = lengths[like.sorted_indices.cpu()]
    packed = pack_padded_sequence(padded, lengths, batch_first=batch_first)
    return PackedSequence(
        packed.data, packed.batch_sizes, like.sorted_indices, like.unsorted_indices
    )


def direction_names(layer: int, bidirectional: bool) -> list[str]:
    """Return how the names of a layer's parameters end: ``l0``, and ``l0_reverse`` for backward."""
    return [f"l{layer}", f"l{layer}_reverse"][: 2 if bidirectional else 1]


def is_backward(name: str) -> bool:
    """Whether a layer's name is that of its backward direction."""
    return name.endswith("_reverse")


def reverse_in_time(sequence: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    """Reverse ``(T, B, ...)`` in time, each sequence within its own length if there are lengths."""
    return sequence.flip(0) if lengths is None else reverse_padded(sequence, lengths)


def join_directions(states: Sequence[torch.Tensor], lengths: torch.Tensor | None) -> torch.Tensor:
    """Join states ``(T, B, H)`` a direction, each in its own order, to ``(T, B, directions * H)``.

    What lies past the lengths becomes zero.
    """
    pieces = [states[0], *(reverse_in_time(backward, lengths) for backward in states[1:])]
    joined = torch.cat(pieces, dim=-1)
    if lengths is None:
        return joined
    time = torch.arange(joined.size(0), device=joined.device).unsqueeze(1)
    return joined.masked_fill((time >= lengths).unsqueeze(-1), 0.0)


def _identity(hidden: torch.Tensor) -> torch.Tensor:
    return hidden


def _quantize_hidden(quantizers: list[Quantizer | None]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that quantizes ``(D, B, H)``, each direction by its own quantizer."""
    if all(quantizer is None for quantizer in quantizers):
        return _identity
    first = quantizers[0]
    if first is not None and (
        len(quantizers) == 1 or all(q is not None and first.is_same_constant(q) for q in quantizers)
    ):
        return first.quantize

    def quantize(hidden: torch.Tensor) -> torch.Tensor:
        return torch.stack(
            [h if q is None else q.quantize(h) for q, h in zip(quantizers, hidden, strict=False)]
        )

    return quantize
