"""Fake quantization and its straight-through gradients."""

from __future__ import annotations

from typing import Any

import torch

from espnet_quant4.kernels import fake_quantize as native
from espnet_quant4.kernels.gradient_rules import GradientRule
from espnet_quant4.kernels.reference import round_to_codes
from espnet_quant4.kernels.tracing import apply_function

__all__ = [
    "ClippedStraightThrough",
    "FullStraightThrough",
    "LearnedClip",
    "fake_quantize",
    "fake_quantize_reference",
    "round_to_codes",
    "round_to_grid",
]


def round_to_grid(x: torch.Tensor, clip: torch.Tensor | float, max_code: int) -> torch.Tensor:
    """Return the codes of ``x`` times ``scale``; arguments as of `round_to_codes`."""
    scale = clip / max_code
    return (x.clamp(-clip, clip) / scale).round_().mul_(scale)


class ClippedStraightThrough(torch.autograd.Function):
    """Fake quantization; the gradient passes inside the clip and is zero outside."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, clip: torch.Tensor | float, max_code: int
    ) -> torch.Tensor:
        ctx.is_tensor = isinstance(clip, torch.Tensor)
        ctx.save_for_backward(x, *([clip] if ctx.is_tensor else []))
        ctx.constant = None if ctx.is_tensor else clip
        return round_to_grid(x, clip, max_code)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        x, *clip = ctx.saved_tensors
        return gradient * (x.abs() <= (clip[0] if clip else ctx.constant)), None, None


class FullStraightThrough(torch.autograd.Function):
    """Fake quantization; the gradient passes everywhere."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, clip: torch.Tensor | float, max_code: int
    ) -> torch.Tensor:
        return round_to_grid(x, clip, max_code)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return gradient, None, None


class LearnedClip(torch.autograd.Function):
    """Fake quantization with a gradient for the clip.

    With ``q(x) = clip * code / max_code``: outside, ``dq/dclip = sign(x)``; inside it is the
    rounding residual ``(q(x) - x) / clip``, if ``with_residual``, else 0. To ``x`` the gradient
    passes inside, and is zero outside.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, clip: torch.Tensor, max_code: int, with_residual: bool
    ) -> torch.Tensor:
        rounded = round_to_grid(x, clip, max_code)
        ctx.with_residual = with_residual
        ctx.save_for_backward(x, clip, *([rounded] if with_residual else []))
        return rounded

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        x, clip, *rounded = ctx.saved_tensors
        outside = x.abs() >= clip
        gradient_x = gradient.masked_fill(outside, 0.0)
        gradient_clip = None
        if ctx.needs_input_grad[1]:
            per_element = x.sign() * outside
            if rounded:
                per_element = torch.where(outside, per_element, (rounded[0] - x) / clip)
            gradient_clip = (gradient * per_element).sum_to_size(clip.shape)
        return gradient_x, gradient_clip, None, None


def fake_quantize(
    x: torch.Tensor, clip: torch.Tensor | float, max_code: int, rule: GradientRule
) -> torch.Tensor:
    """Return ``x`` on the grid, with the gradient of a rule.

    Args:
        x: any shape, float32 or float64.
        clip: a number or a tensor that broadcasts against ``x``, above 0; a tensor for learned clips.
        max_code: largest code, ``2^(bits-1) - 1``.
        rule: any but ``NONE``.

    Raises:
        NotImplementedError: for the rule ``NONE``.
    """
    if rule != GradientRule.NONE and native.suits_native(x, clip):
        return native.fake_quantize(x, clip, max_code, rule)
    return fake_quantize_reference(x, clip, max_code, rule)


def fake_quantize_reference(
    x: torch.Tensor, clip: torch.Tensor | float, max_code: int, rule: GradientRule
) -> torch.Tensor:
    """`fake_quantize` in PyTorch's operations, on any device and in any precision."""
    if rule == GradientRule.CLIPPED:
        return apply_function(ClippedStraightThrough, x, clip, max_code)
    if rule == GradientRule.FULL:
        return apply_function(FullStraightThrough, x, clip, max_code)
    if rule in (GradientRule.LEARNED, GradientRule.LEARNED_WITH_RESIDUAL):
        with_residual = rule == GradientRule.LEARNED_WITH_RESIDUAL
        return apply_function(LearnedClip, x, clip, max_code, with_residual)
    raise NotImplementedError(
        f"gradient_rule: {rule!r}; a quantizer sets one of "
        f"{', '.join(r.name for r in GradientRule if r)}, or overrides fake_quantize()"
    )
