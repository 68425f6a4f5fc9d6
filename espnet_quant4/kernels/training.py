"""Binding of the recurrence in training (``csrc/lstm_training.cpp``); what it computes is defined in
`espnet_quant4.kernels.fused_lstm`, which is the only caller and has checked all tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from ctypes import c_float, c_int64, c_void_p
from typing import TYPE_CHECKING

import torch

from espnet_quant4.kernels.library import (
    NO_MEMORY,
    check_status,
    load,
    selected_instruction_set,
)

if TYPE_CHECKING:
    from espnet_quant4.kernels.fused_lstm import InputCodes, Layer
    from espnet_quant4.kernels.row_layout import RowLayout

Tensors = Mapping[str, "torch.Tensor | None"]


class HiddenQuantizer(ctypes.Structure):
    """``quant4_hidden_quantizer``."""

    _fields_ = (("clip", c_float), ("max_code", c_int64), ("rule", c_int64))


class Shape(ctypes.Structure):
    """``quant4_lstm_training_shape``."""

    _fields_ = (
        ("rows", c_int64),
        ("frames", c_int64),
        ("batch", c_int64),
        ("directions", c_int64),
        ("hidden_size", c_int64),
        ("lengths", c_void_p),
        ("first_rows", c_void_p),
        ("row_stride", c_int64),
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
    "output",
    "initial_quantized",
    "initial_cell",
    "output_gradient",
    "output_is_quantized",
    "final_hidden_gradient",
    "cell_gradient",
    "gate_gradients",
    "previous",
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


def _shape(tensors: Tensors, clips: torch.Tensor, layer: Layer, layout: RowLayout) -> Shape:
    cell = tensors["cell"]
    assert cell is not None
    rows, directions, hidden_size = cell.shape
    quantizers = (HiddenQuantizer * 2)()
    for direction, clip in enumerate(clips.tolist()):
        code, rule = layer.max_codes[direction], layer.rules[direction]
        quantizers[direction] = HiddenQuantizer(clip, code, rule)
    return Shape(
        rows,
        layout.frames,
        layout.batch,
        directions,
        hidden_size,
        _pointer(layer.lengths),
        _pointer(layout.first_rows),
        layout.row_stride,
        quantizers,
        torch.get_num_threads(),
    )


def _run(name: str, shape: Shape, call: ctypes.Structure) -> None:
    function = getattr(load(), name)
    status = function(selected_instruction_set(), ctypes.byref(shape), ctypes.byref(call))
    check_status(status, name, "a length, clip or size")


def _pointer(tensor: torch.Tensor | None) -> int | None:
    if tensor is None:
        return None
    if not (tensor.is_cpu and tensor.is_contiguous()):
        raise ValueError(
            f"strides {tensor.stride()} on {tensor.device}; wanted: contiguous on cpu."
        )
    return tensor.data_ptr()


def lstm_forward(
    clips: torch.Tensor, layer: Layer, layout: RowLayout, **tensors: torch.Tensor | None
) -> None:
    """Fill the outputs of ``quant4_lstm_training_forward_call``; ``tensors`` are its fields.

    Raises:
        ValueError: for lengths or clips out of range.
        NativeError: where memory runs out.
    """
    largest = 0 if layer.hidden_codes is None else layer.hidden_codes.max_code
    fields = {name: _pointer(tensor) for name, tensor in tensors.items()}
    call = ForwardCall(**fields, weight_hh_max=largest)
    _run("quant4_lstm_training_forward", _shape(tensors, clips, layer, layout), call)


def lstm_backward(
    clips: torch.Tensor, layer: Layer, layout: RowLayout, **tensors: torch.Tensor | None
) -> None:
    """Fill the outputs of ``quant4_lstm_training_backward_call``; ``tensors`` are its fields.

    Raises:
        ValueError: for lengths or clips out of range.
        NativeError: where memory runs out.
    """
    fields = {name: _pointer(tensor) for name, tensor in tensors.items()}
    call = BackwardCall(**fields, output_is_quantized=int(layer.quantized_output))
    _run("quant4_lstm_training_backward", _shape(tensors, clips, layer, layout), call)


def product_of_codes(
    x: torch.Tensor, codes: InputCodes, bias: torch.Tensor | None
) -> torch.Tensor | None:
    """Return ``x weight^T + bias``, ``(rows, D * 4 * H)``, computed on codes; None where ``x`` has NaN.

    Args:
        x: ``(rows, columns)`` float32, contiguous.
        codes: the weight, and the grid of ``x``.
        bias: ``(D * 4 * H,)`` or None.
    """
    weight = codes.weight
    columns = weight.codes.size(2)
    scale = (weight.scale * (codes.clip / codes.max_code)).flatten()
    out = x.new_empty(x.size(0), scale.numel())
    status = load().quant4_linear_once(
        selected_instruction_set(),
        _pointer(weight.codes),
        scale.numel(),
        columns,
        weight.max_code,
        _pointer(scale),
        _pointer(None if bias is None else bias.contiguous()),
        _pointer(x),
        x.size(0),
        codes.clip,
        codes.max_code,
        _pointer(out),
        torch.get_num_threads(),
    )
    if status == NO_MEMORY:
        check_status(status, "quant4_linear_once")
    return None if status else out
