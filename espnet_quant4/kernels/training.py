"""Binding of the recurrence in training (``csrc/lstm_training.cpp``); what it computes is defined in
`espnet_quant4.kernels.fused_lstm`, which is the only caller and has checked all tensors."""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int64, c_void_p
from typing import TYPE_CHECKING

import torch

from espnet_quant4.kernels.library import NativeError, load, selected_instruction_set

if TYPE_CHECKING:
    from espnet_quant4.kernels.fused_lstm import Layer


class HiddenQuantizer(ctypes.Structure):
    """``quant4_hidden_quantizer``."""

    _fields_ = (("clip", c_float), ("max_code", c_int64), ("rule", c_int64))


class Shape(ctypes.Structure):
    """``quant4_lstm_training_shape``."""

    _fields_ = (
        ("frames", c_int64),
        ("batch", c_int64),
        ("directions", c_int64),
        ("hidden_size", c_int64),
        ("lengths", c_void_p),
        ("quantizers", HiddenQuantizer * 2),
        ("threads", c_int64),
    )


FORWARD = (
    "gates",
    "weight_hh",
    "weight_hh_codes",
    "weight_hh_scale",
    "weight_hh_max",
    "initial_quantized",
    "initial_cell",
    "hidden",
    "quantized",
    "cell",
    "final_hidden",
    "final_cell",
)
BACKWARD = (
    "gates",
    "cell",
    "weight_hh",
    "initial_cell",
    "output_gradient",
    "output_is_quantized",
    "final_hidden_gradient",
    "cell_gradient",
    "gate_gradients",
    "initial_quantized_gradient",
    "bias_gradient",
    "clip_gradient",
)


class ForwardCall(ctypes.Structure):
    """``quant4_lstm_training_forward_call``."""

    _fields_ = tuple((n, c_int64 if n == "weight_hh_max" else c_void_p) for n in FORWARD)


class BackwardCall(ctypes.Structure):
    """``quant4_lstm_training_backward_call``."""

    _fields_ = tuple(
        (name, c_int64 if name == "output_is_quantized" else c_void_p) for name in BACKWARD
    )


def _shape(cell: torch.Tensor, clips: torch.Tensor, layer: Layer) -> Shape:
    frames, batch, directions, hidden_size = cell.shape
    quantizers = (HiddenQuantizer * 2)()
    for direction, clip in enumerate(clips.tolist()):
        code, rule = layer.max_codes[direction], layer.rules[direction]
        quantizers[direction] = HiddenQuantizer(clip, code, rule)
    lengths = None if layer.lengths is None else layer.lengths.data_ptr()
    threads = torch.get_num_threads()
    return Shape(frames, batch, directions, hidden_size, lengths, quantizers, threads)


def _run(name: str, shape: Shape, call: ctypes.Structure) -> None:
    function = getattr(load(), name)
    status = function(selected_instruction_set(), ctypes.byref(shape), ctypes.byref(call))
    if status == 1:
        raise ValueError(f"{name}: a length, clip or size is out of range.")
    if status:
        raise NativeError(f"{name}: out of memory.")


def _pointer(tensor: torch.Tensor | None) -> int | None:
    if tensor is None:
        return None
    if not (tensor.is_cpu and tensor.is_contiguous()):
        raise ValueError(
            f"strides {tensor.stride()} on {tensor.device}; wanted: contiguous on cpu."
        )
    return tensor.data_ptr()


def lstm_forward(clips: torch.Tensor, layer: Layer, **tensors: torch.Tensor | None) -> None:
    """Fill the outputs of ``quant4_lstm_training_forward_call``; ``tensors`` are its fields.

    Raises:
        ValueError: for lengths or clips out of range.
        NativeError: where memory runs out.
    """
    cell = tensors["cell"]
    assert cell is not None
    fields = {name: _pointer(tensor) for name, tensor in tensors.items()}
    fields["weight_hh_max"] = 0 if layer.hidden_codes is None else layer.hidden_codes.weight_max
    call = ForwardCall(*(fields[name] for name in FORWARD))
    _run("quant4_lstm_training_forward", _shape(cell, clips, layer), call)


def lstm_backward(clips: torch.Tensor, layer: Layer, **tensors: torch.Tensor | None) -> None:
    """Fill the outputs of ``quant4_lstm_training_backward_call``; ``tensors`` are its fields.

    Raises:
        ValueError: for lengths or clips out of range.
        NativeError: where memory runs out.
    """
    cell = tensors["cell"]
    assert cell is not None
    fields = {name: _pointer(tensor) for name, tensor in tensors.items()}
    fields["output_is_quantized"] = int(layer.quantized_output)
    call = BackwardCall(*(fields[name] for name in BACKWARD))
    _run("quant4_lstm_training_backward", _shape(cell, clips, layer), call)
