"""Fake quantization of whole tensors in one pass, forward and backward (``csrc/fake_quantize.cpp``).

Definition: the autograd functions of `espnet_quant4.quantizers.rounding`, which serve wherever
`suits_native` says no.
"""

from __future__ import annotations

import ctypes
from ctypes import c_int64, c_void_p
from typing import Any

import torch

from espnet_quant4.kernels import native
from espnet_quant4.kernels.gradient_rules import GradientRule
from espnet_quant4.kernels.library import (
    NOT_A_NUMBER,
    check_status,
    load,
    selected_instruction_set,
)
from espnet_quant4.kernels.tracing import tracer_of

# Of fewer elements PyTorch's own operations are as fast.
LEAST_ELEMENTS = 1024


class _Grid(ctypes.Structure):
    """``quant4_grid``."""

    _fields_ = (
        ("x", c_void_p),
        ("groups", c_int64),
        ("elements", c_int64),
        ("clips", c_void_p),
        ("scales", c_void_p),
        ("max_code", c_int64),
        ("threads", c_int64),
    )


def suits_native(x: torch.Tensor, clip: torch.Tensor | float = 1.0) -> bool:
    """Whether the one-pass kernels can serve this tensor, and its clip, here and now."""
    is_per_row = not isinstance(clip, torch.Tensor) or (
        clip.dtype == torch.float32
        and (clip.numel() == 1 or clip.shape == (x.size(0), *[1] * (x.dim() - 1)))
    )
    return (
        is_per_row
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and x.numel() >= LEAST_ELEMENTS
        # Memory that holds the negative of the values.
        and not x.is_neg()
        and tracer_of(x, clip if isinstance(clip, torch.Tensor) else None) is None
        and native.is_available()
    )


def fake_quantize(
    x: torch.Tensor, clip: torch.Tensor | float, max_code: int, rule: GradientRule
) -> torch.Tensor:
    """Return ``x`` on the grid; arguments as of `espnet_quant4.quantizers.rounding.fake_quantize`.

    Args:
        x: one that `suits_native`.
        clip: a number, or a tensor of one element or of one for each ``x[i]``.
        max_code: largest code.
        rule: any but ``NONE``.
    """
    return _FakeQuantize.apply(x, clip, max_code, rule)


def round_into(
    x: torch.Tensor, clip: torch.Tensor, max_code: int, rounded: torch.Tensor, codes: torch.Tensor
) -> bool:
    """Write ``x`` on the grid and its codes.

    Args:
        x: ``(rows, columns)`` contiguous float32 on the CPU.
        clip: ``(groups,)`` float32 for equal blocks of rows.
        max_code: 1 to 127.
        rounded: like ``x``.
        codes: of its shape, int8.

    Returns:
        Whether all of ``x`` are numbers; NaN stays NaN in ``rounded`` and has code 0.
    """
    return _round(x, clip, clip / max_code, max_code, rounded, codes)[0]


def moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return mean magnitude, mean square and largest magnitude of each row.

    Args:
        x: ``(groups, elements)`` float32, at least one element.

    Returns:
        Three of ``(groups,)`` float32.
    """
    if not suits_native(x):
        magnitudes = x.abs()
        return magnitudes.mean(dim=1), x.square().mean(dim=1), magnitudes.amax(dim=1)
    x = x.contiguous()
    result = x.new_empty(x.size(0), 3, dtype=torch.float64)
    status = load().quant4_moments(
        selected_instruction_set(),
        x.data_ptr(),
        x.size(0),
        x.size(1),
        result.data_ptr(),
        torch.get_num_threads(),
    )
    check_status(status, "quant4_moments", "a size")
    sizes, squares, largest = result.unbind(1)
    return (sizes / x.size(1)).float(), (squares / x.size(1)).float(), largest.float()


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        clip: torch.Tensor | float,
        max_code: int,
        rule: GradientRule,
    ) -> torch.Tensor:
        x = x.contiguous()
        if isinstance(clip, torch.Tensor):
            clips = clip.detach()
            scales = clips / max_code
        else:
            # A number is divided in double precision, as in the definition.
            clips, scales = (x.new_tensor([number]) for number in (clip, clip / max_code))
        rounded = torch.empty_like(x)
        _, is_inside = _round(x, clips, scales, max_code, rounded, None)
        # Where the clip cuts off nothing, as with what a tanh gives, there is nothing to mask.
        ctx.passes = rule == GradientRule.FULL or (rule == GradientRule.CLIPPED and is_inside)
        ctx.max_code, ctx.rule = max_code, rule
        if not ctx.passes:
            ctx.save_for_backward(x, clips, scales)
        return rounded

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        if ctx.passes:
            return gradient, None, None, None
        x, clips, scales = ctx.saved_tensors
        gradient_x, gradient_clip = straight_through(
            x, clips, scales, ctx.max_code, ctx.rule, gradient
        )
        learned = ctx.rule != GradientRule.CLIPPED and ctx.needs_input_grad[1]
        return gradient_x, gradient_clip.view_as(clips) if learned else None, None, None


def straight_through(
    x: torch.Tensor,
    clips: torch.Tensor,
    scales: torch.Tensor,
    max_code: int,
    rule: GradientRule,
    gradient: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients of ``x``, like it, and of its clips, ``(groups,)`` float32."""
    if tracer_of(gradient) is not None:
        return _straight_through_reference(x, clips, scales, max_code, rule, gradient)
    gradient = gradient.resolve_neg().contiguous()
    gradient_x = torch.empty_like(x)
    clip_gradient = x.new_empty(clips.numel(), dtype=torch.float64)
    grid = _grid(x, clips, scales, max_code)
    status = load().quant4_straight_through(
        selected_instruction_set(),
        ctypes.byref(grid),
        int(rule),
        gradient.data_ptr(),
        gradient_x.data_ptr(),
        clip_gradient.data_ptr(),
    )
    check_status(status, "quant4_straight_through", "a size")
    return gradient_x, clip_gradient.float()


def _straight_through_reference(
    x: torch.Tensor,
    clips: torch.Tensor,
    scales: torch.Tensor,
    max_code: int,
    rule: GradientRule,
    gradient: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`straight_through` in PyTorch's operations, for gradients that come as a batch (``vmap``)."""
    groups = clips.numel()
    rows, mine = x.reshape(groups, -1), gradient.reshape(groups, -1)
    clip, scale = clips.reshape(groups, 1), scales.reshape(groups, 1)
    if rule == GradientRule.CLIPPED:
        return (mine * (rows.abs() <= clip)).reshape(x.shape), torch.zeros_like(clips.flatten())
    outside = rows.abs() >= clip
    inside = torch.zeros_like(rows)
    if rule == GradientRule.LEARNED_WITH_RESIDUAL:
        inside = ((rows.clamp(-clip, clip) / scale).round() * scale - rows) / clip
    of_clips = (mine * torch.where(outside, rows.sign(), inside)).sum(dim=1)
    return mine.masked_fill(outside, 0.0).reshape(x.shape), of_clips


def _round(
    x: torch.Tensor,
    clips: torch.Tensor,
    scales: torch.Tensor,
    max_code: int,
    rounded: torch.Tensor,
    codes: torch.Tensor | None,
) -> tuple[bool, bool]:
    """Write what `round_into` does; return whether all are numbers, and whether all are inside."""
    grid = _grid(x, clips, scales, max_code)
    inside = c_int64()
    status = load().quant4_fake_quantize(
        selected_instruction_set(),
        ctypes.byref(grid),
        rounded.data_ptr(),
        None if codes is None else codes.data_ptr(),
        ctypes.byref(inside),
    )
    if status != NOT_A_NUMBER:
        check_status(status, "quant4_fake_quantize", "a size")
    return status != NOT_A_NUMBER, bool(inside.value)


def _grid(x: torch.Tensor, clips: torch.Tensor, scales: torch.Tensor, max_code: int) -> _Grid:
    groups = clips.numel()
    if clips.dtype != torch.float32 or groups < 1 or x.numel() % groups:
        raise ValueError(f"clip: {clips.dtype} {tuple(clips.shape)} for {tuple(x.shape)}")
    assert x.is_contiguous() and clips.is_contiguous() and scales.is_contiguous()
    return _Grid(
        x.data_ptr(),
        groups,
        x.numel() // groups,
        clips.data_ptr(),
        scales.data_ptr(),
        max_code,
        torch.get_num_threads(),
    )
