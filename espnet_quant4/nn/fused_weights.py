"""Weights of all directions of an LSTM layer, quantized in one pass to floats and codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from espnet_quant4.kernels.fake_quantize import round_into, straight_through
from espnet_quant4.kernels.fused_lstm import WeightCodes
from espnet_quant4.kernels.gradient_rules import GradientRule
from espnet_quant4.nn.quantized_module import quantize_weight
from espnet_quant4.quantizers import Quantizer


@dataclass(frozen=True)
class FusedWeight:
    """A weight of all directions.

    Attributes:
        tensor: ``(D, rows, columns)`` after quantization, with its gradient.
        codes: the same as codes; None where there are none, or none were asked for.
    """

    tensor: torch.Tensor
    codes: WeightCodes | None


def fuse_weights(
    weights: Sequence[torch.Tensor], quantizers: Sequence[Quantizer | None], wants_codes: bool
) -> FusedWeight:
    """Quantize a weight of all directions.

    Args:
        weights: of each direction ``(rows, columns)`` float32 on the CPU.
        quantizers: of each direction.
        wants_codes: whether products will be computed on codes.
    """
    forms = [
        None if q is None else q.fused_form(weight)
        for q, weight in zip(quantizers, weights, strict=True)
    ]
    first = quantizers[0]
    rule = GradientRule.NONE if forms[0] is None else forms[0][1]
    codes = {None if q is None else q.max_code for q in quantizers}
    if first is None or rule == GradientRule.NONE or len(codes) > 1:
        quantized = [quantize_weight(q, w) for q, w in zip(quantizers, weights, strict=True)]
        return FusedWeight(torch.stack(quantized), None)
    clips = [
        clip.flatten()
        if isinstance(clip, torch.Tensor)
        else torch.tensor([clip], dtype=torch.float32, device="cpu")
        for clip, _ in (form for form in forms if form is not None)
    ]
    max_code = first.max_code
    tensor, all_codes, are_numbers = _QuantizedWeights.apply(rule, max_code, *weights, *clips)
    if not (wants_codes and are_numbers):
        return FusedWeight(tensor, None)
    rows = tensor.size(1)
    scale = [(c.detach() / max_code).repeat_interleave(rows // c.numel()) for c in clips]
    return FusedWeight(tensor, WeightCodes(all_codes, torch.stack(scale), max_code))


class _QuantizedWeights(torch.autograd.Function):
    """Fake quantization of several weights ``(rows, columns)`` into one tensor."""

    @staticmethod
    def forward(ctx: Any, rule: GradientRule, max_code: int, *tensors: torch.Tensor) -> Any:
        count = len(tensors) // 2
        weights = [weight.contiguous() for weight in tensors[:count]]
        clips = tensors[count:]
        rounded = weights[0].new_empty(count, *weights[0].shape)
        codes = torch.empty_like(rounded, dtype=torch.int8)
        are_numbers = [
            round_into(weight, clip, max_code, rounded[i], codes[i])
            for i, (weight, clip) in enumerate(zip(weights, clips, strict=True))
        ]
        ctx.rule, ctx.max_code = rule, max_code
        if rule != GradientRule.FULL:
            ctx.save_for_backward(*weights, *clips)
        ctx.mark_non_differentiable(codes)
        return rounded, codes, all(are_numbers)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: torch.Tensor, *_: Any) -> Any:
        count = gradient.size(0)
        if ctx.rule == GradientRule.FULL:
            return (None, None, *gradient.unbind(0), *[None] * count)
        saved = ctx.saved_tensors
        weights, clips = saved[:count], saved[count:]
        gradients = [
            straight_through(weight, clip, clip / ctx.max_code, ctx.max_code, ctx.rule, mine)
            for weight, clip, mine in zip(weights, clips, gradient, strict=True)
        ]
        of_clips = [g for _, g in gradients]
        if ctx.rule == GradientRule.CLIPPED:
            of_clips = [None] * count
        return (None, None, *(g for g, _ in gradients), *of_clips)
