"""Binding of ``libquant4``, the C++ library of the INT4 kernels (``csrc/quant4.h``).

Plain ctypes: a call with three tensors costs under two microseconds, and the library need not know
PyTorch. Everything that C++ takes on trust is checked here: dtype, device, contiguity, shape, range.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from espnet_quant4.kernels.int4_reference import DirectionCodes
from espnet_quant4.kernels.library import (
    INTERFACE_VERSION,
    LSTMCall,
    NativeError,
    check_status,
    instruction_sets,
    is_available,
    load,
    selected_instruction_set,
)

__all__ = [
    "INTERFACE_VERSION",
    "NativeError",
    "NativeLSTM",
    "NativeLinear",
    "embedding",
    "instruction_set_name",
    "instruction_sets",
    "is_available",
    "load",
    "quantize",
    "selected_instruction_set",
]


def _check_tensor(
    name: str, tensor: torch.Tensor, dtype: torch.dtype, shape: Sequence[int]
) -> None:
    if tensor.dtype != dtype or not tensor.is_cpu:
        raise TypeError(
            f"{name}: {tensor.dtype} on {tensor.device}; the INT4 kernels take {dtype} on cpu."
        )
    if tuple(tensor.shape) != tuple(shape):
        raise ValueError(f"{name}: shape {tuple(tensor.shape)}; expected {tuple(shape)}.")


def _pointer(
    name: str, tensor: torch.Tensor | None, dtype: torch.dtype, shape: Sequence[int]
) -> int | None:
    """Return the address of a contiguous CPU tensor of this dtype and shape; None for None.

    Raises:
        TypeError, ValueError: for any other.
    """
    if tensor is None:
        return None
    _check_tensor(name, tensor, dtype, shape)
    if not tensor.is_contiguous():
        raise ValueError(f"{name}: strides {tensor.stride()}; call contiguous() first.")
    return tensor.data_ptr()


def _check_max(name: str, value: int) -> int:
    if not 1 <= value <= 127:
        raise ValueError(f"{name}: {value}; valid are 1 to 127 (2 to 8 bits).")
    return int(value)


def _check_codes(name: str, codes: torch.Tensor, largest: int) -> None:
    if codes.numel() and not -largest <= int(codes.min()) <= int(codes.max()) <= largest:
        raise ValueError(
            f"{name}: codes {int(codes.min())} to {int(codes.max())}; valid are {-largest} to "
            f"{largest}."
        )


def _check_clip(name: str, clip: float) -> float:
    if not 0 < clip < float("inf"):
        raise ValueError(f"{name}: {clip}; valid are finite numbers above 0.")
    return float(clip)


class NativeLinear:
    """A packed weight and what multiplies with it: ``sum_k x[k] weight[row, k]`` in integers.

    Args:
        codes: ``(rows, columns)`` int8, each in ``-weight_max .. weight_max``.
        weight_max: largest code; weights of up to 7 are kept two a byte.
        scale: ``(rows,)`` float32, what a row's sum is multiplied with.
        bias: ``(rows,)`` float32 or None.
        instruction_set: number in `instruction_sets`; the selected one if None.

    Raises:
        TypeError, ValueError: for tensors or numbers that do not fit.
        NativeError: where the library is not available.
    """

    def __init__(
        self,
        codes: torch.Tensor,
        weight_max: int,
        scale: torch.Tensor,
        bias: torch.Tensor | None = None,
        instruction_set: int | None = None,
    ):
        library = load()
        if codes.dim() != 2:
            raise ValueError(f"codes: shape {tuple(codes.shape)}; expected (rows, columns).")
        self.rows, self.columns = codes.shape
        _check_max("weight_max", weight_max)
        data = _pointer("codes", codes, torch.int8, codes.shape)
        _check_codes("codes", codes, weight_max)
        self._handle = library.quant4_linear_create(
            _choose(instruction_set),
            data,
            self.rows,
            self.columns,
            weight_max,
            _pointer("scale", scale, torch.float32, (self.rows,)),
            _pointer("bias", bias, torch.float32, (self.rows,)),
        )
        if not self._handle:
            raise NativeError("quant4_linear_create: out of memory.")
        self._destroy = library.quant4_linear_destroy

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._destroy(self._handle)

    def run(self, x: torch.Tensor, clip: float, input_max: int, threads: int = 1) -> torch.Tensor:
        """Return ``scale * (Q(x) W^T) + bias``, ``(frames, rows)`` float32.

        Args:
            x: ``(frames, columns)`` float32.
            clip: of the input.
            input_max: largest code of the input.
            threads: how many may be used.

        Raises:
            TypeError, ValueError: for tensors or numbers that do not fit; ValueError for NaN.
        """
        frames = x.size(0)
        data = _pointer("x", x, torch.float32, (frames, self.columns))
        out = x.new_empty(frames, self.rows)
        status = load().quant4_linear_run(
            self._handle,
            data,
            frames,
            _check_clip("clip", clip),
            _check_max("input_max", input_max),
            out.data_ptr(),
            threads,
        )
        check_status(status, "INT4 linear layer")
        return out

    def sums(self, x: torch.Tensor, input_max: int, threads: int = 1) -> torch.Tensor:
        """Return the integer sums, ``(frames, rows)`` int32, of codes ``x`` ``(frames, columns)`` int8.

        Raises:
            TypeError, ValueError: for tensors or numbers that do not fit.
        """
        frames = x.size(0)
        data = _pointer("x", x, torch.int8, (frames, self.columns))
        _check_codes("x", x, _check_max("input_max", input_max))
        sums = x.new_empty(frames, self.rows, dtype=torch.int32)
        status = load().quant4_linear_sums(
            self._handle, data, frames, input_max, sums.data_ptr(), threads
        )
        check_status(status, "INT4 product")
        return sums


class NativeLSTM:
    """A stack of packed LSTM layers; `set_direction` fills it.

    Args:
        layers: number of layers.
        directions: 1 or 2.
        input_size: width of the first layer's input.
        hidden_size: cells per direction.
        instruction_set: number in `instruction_sets`; the selected one if None.
    """

    def __init__(
        self,
        layers: int,
        directions: int,
        input_size: int,
        hidden_size: int,
        instruction_set: int | None = None,
    ):
        library = load()
        self.layers, self.directions = layers, directions
        self.input_size, self.hidden_size = input_size, hidden_size
        self._handle = library.quant4_lstm_create(
            _choose(instruction_set), layers, directions, input_size, hidden_size
        )
        if not self._handle:
            raise ValueError(
                f"layers {layers}, directions {directions}, input_size {input_size}, hidden_size "
                f"{hidden_size}: valid are 1 and above, and 1 or 2 directions."
            )
        self._destroy, self._run = library.quant4_lstm_destroy, library.quant4_lstm_run

    @classmethod
    def from_layers(
        cls,
        layers: Sequence[Sequence[DirectionCodes]],
        input_size: int,
        instruction_set: int | None = None,
    ) -> NativeLSTM:
        """Return the stack of these layers, each with an entry a direction.

        Raises:
            TypeError, ValueError: for tensors or numbers that do not fit.
        """
        hidden_size = layers[0][0].weight_hh.size(1)
        built = cls(len(layers), len(layers[0]), input_size, hidden_size, instruction_set)
        for layer, directions in enumerate(layers):
            for direction, codes in enumerate(directions):
                # Not asdict(), which would copy the tensors.
                built.set_direction(layer, direction, **vars(codes))
        return built

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._destroy(self._handle)

    def set_direction(
        self,
        layer: int,
        direction: int,
        weight_ih: torch.Tensor,
        weight_ih_max: int,
        scale_ih: torch.Tensor,
        weight_hh: torch.Tensor,
        weight_hh_max: int,
        scale_hh: torch.Tensor,
        bias: torch.Tensor,
        hidden_clip: float,
        hidden_max: int,
    ) -> None:
        """Set one layer and direction.

        Args:
            layer: number of the layer.
            direction: 0, or 1 for backward.
            weight_ih: ``(4 hidden_size, inputs)`` int8 codes, gates in the order i, f, g, o.
            weight_ih_max: their largest code.
            scale_ih: ``(parts, 4 hidden_size)`` float32, input scale times weight scale. Two parts:
                the halves of the input, one from each direction below, have scales of their own.
            weight_hh: ``(4 hidden_size, hidden_size)`` int8 codes.
            weight_hh_max: their largest code.
            scale_hh: ``(4 hidden_size,)`` float32, hidden scale times weight scale.
            bias: ``(4 hidden_size,)`` float32, both biases added.
            hidden_clip: of the hidden state.
            hidden_max: largest code of the hidden state.

        Raises:
            TypeError, ValueError: for tensors or numbers that do not fit.
        """
        rows = 4 * self.hidden_size
        inputs = self.input_size if layer == 0 else self.directions * self.hidden_size
        parts = scale_ih.size(0)
        data = (
            _pointer("weight_ih", weight_ih, torch.int8, (rows, inputs)),
            _pointer("weight_hh", weight_hh, torch.int8, (rows, self.hidden_size)),
        )
        _check_codes("weight_ih", weight_ih, _check_max("weight_ih_max", weight_ih_max))
        _check_codes("weight_hh", weight_hh, _check_max("weight_hh_max", weight_hh_max))
        status = load().quant4_lstm_set(
            self._handle,
            layer,
            direction,
            data[0],
            weight_ih_max,
            _pointer("scale_ih", scale_ih, torch.float32, (parts, rows)),
            parts,
            data[1],
            weight_hh_max,
            _pointer("scale_hh", scale_hh, torch.float32, (rows,)),
            _pointer("bias", bias, torch.float32, (rows,)),
            _check_clip("hidden_clip", hidden_clip),
            _check_max("hidden_max", hidden_max),
        )
        check_status(status, f"INT4 LSTM, layer {layer}, direction {direction}")

    def run(
        self,
        x: torch.Tensor,
        input_clip: float,
        input_max: int,
        hidden: torch.Tensor,
        cell: torch.Tensor,
        out: torch.Tensor,
        lengths: torch.Tensor | None = None,
        codes: torch.Tensor | None = None,
        threads: int = 1,
    ) -> None:
        """Run the layers.

        Args:
            x: ``(T, B, input_size)`` float32, the last dimension contiguous.
            input_clip: clip of the input.
            input_max: its largest code.
            hidden: ``(layers * directions, B, hidden_size)`` float32: initial states, overwritten
                by the final ones.
            cell: likewise.
            out: ``(T, B, directions * hidden_size)`` float32, the last dimension contiguous: the
                last layer's hidden states are written to it up to each length.
            lengths: ``(B,)`` int64, each in ``1..T``, or None: all are ``T``.
            codes: ``(layers, T, B, directions * hidden_size)`` int8 for every layer's codes, or None.
            threads: how many may be used.

        Raises:
            TypeError, ValueError: for tensors or numbers that do not fit; ValueError for NaN.
        """
        frames, batch, _ = x.shape
        states = (self.layers * self.directions, batch, self.hidden_size)
        width = self.directions * self.hidden_size
        hidden_pointer = _pointer("hidden", hidden, torch.float32, states)
        cell_pointer = _pointer("cell", cell, torch.float32, states)
        self.call(
            _strided_pointer("x", x, (frames, batch, self.input_size)),
            frames,
            batch,
            x.stride(0),
            x.stride(1),
            _check_clip("input_clip", input_clip),
            _check_max("input_max", input_max),
            _pointer("lengths", lengths, torch.int64, (batch,)),
            hidden_pointer,
            cell_pointer,
            hidden_pointer,
            cell_pointer,
            _strided_pointer("out", out, (frames, batch, width)),
            out.stride(0),
            out.stride(1),
            _pointer("codes", codes, torch.int8, (self.layers, frames, batch, width)),
            threads,
        )

    def call(self, *fields: float | None) -> None:
        """Run with the fields of `LSTMCall`, which the caller has checked.

        For a step of streaming recognition, where the checks of `run` would take as long as a quarter
        of the work.

        Raises:
            ValueError: for lengths or numbers out of range, and for NaN in the input.
        """
        status = self._run(self._handle, LSTMCall(*fields))
        check_status(status, "INT4 LSTM")


def _strided_pointer(name: str, tensor: torch.Tensor, shape: Sequence[int]) -> int:
    _check_tensor(name, tensor, torch.float32, shape)
    if tensor.stride(-1) != 1 and tensor.size(-1) > 1:
        raise ValueError(f"{name}: strides {tensor.stride()}; the last one has to be 1.")
    return tensor.data_ptr()


def _choose(instruction_set: int | None) -> int:
    if instruction_set is None:
        return selected_instruction_set()
    if not load().quant4_instruction_set_works(instruction_set):
        raise NativeError(
            f"instruction set {instruction_set} does not work here; known: {instruction_sets()}"
        )
    return instruction_set


def instruction_set_name() -> str:
    """Return the name of the instruction set in use."""
    return list(instruction_sets())[selected_instruction_set()]


def quantize(
    x: torch.Tensor, clip: float, max_code: int, instruction_set: int | None = None
) -> torch.Tensor:
    """Return ``round_half_even(clamp(x, -clip, clip) / (clip / max_code))`` as int8.

    Args:
        x: any shape, contiguous float32.
        clip: finite, above 0.
        max_code: 1 to 127.
        instruction_set: number in `instruction_sets`; the selected one if None.

    Raises:
        TypeError, ValueError: for tensors or numbers that do not fit; ValueError for NaN.
    """
    codes = x.new_empty(x.shape, dtype=torch.int8)
    status = load().quant4_quantize(
        _choose(instruction_set),
        _pointer("x", x, torch.float32, x.shape),
        x.numel(),
        _check_clip("clip", clip),
        _check_max("max_code", max_code),
        codes.data_ptr(),
    )
    check_status(status, "quantize")
    return codes


def embedding(
    packed: torch.Tensor, columns: int, bits: int, scale: torch.Tensor, ids: torch.Tensor
) -> torch.Tensor:
    """Look up rows of a packed table.

    Args:
        packed: ``(rows, ceil(columns * bits / 8))`` uint8, see `espnet_quant4.int4.packing`.
        columns: width of the table.
        bits: 2 to 8.
        scale: ``(groups,)`` float32, each for ``rows / groups`` consecutive rows.
        ids: any shape, int64, each in ``0 .. rows - 1``.

    Returns:
        ``(*ids.shape, columns)`` float32.

    Raises:
        TypeError, ValueError: for tensors or numbers that do not fit.
    """
    rows = packed.size(0)
    out = ids.new_empty(*ids.shape, columns, dtype=torch.float32)
    ids = ids.contiguous()
    status = load().quant4_embedding_run(
        _pointer("packed", packed, torch.uint8, (rows, (columns * bits + 7) // 8)),
        rows,
        columns,
        bits,
        _pointer("scale", scale, torch.float32, scale.shape),
        scale.numel(),
        _pointer("ids", ids, torch.int64, ids.shape),
        ids.numel(),
        out.data_ptr(),
    )
    if status:
        raise ValueError(
            f"INT4 embedding: ids {int(ids.min()) if ids.numel() else None} to "
            f"{int(ids.max()) if ids.numel() else None}; valid are 0 to {rows - 1}; bits {bits}."
        )
    return out
