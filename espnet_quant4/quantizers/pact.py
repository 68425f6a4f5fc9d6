"""Learned clips: ``pact`` and ``pact+``.

Choi et al., "PACT: Parameterized Clipping Activation for Quantized Neural Networks", 2018; here
two-sided and symmetric, since what an LSTM reads has both signs. ``pact`` learns the clip from the
values that it clips. ``pact+`` adds the rounding residual of those inside, which is the derivative
of the quantized value with respect to the clip with rounding taken as the identity.
"""

from __future__ import annotations

from typing import Any

import torch

from espnet_quant4.kernels.gradient_rules import GradientRule
from espnet_quant4.kernels.tracing import apply_function
from espnet_quant4.quantizers.base import SMALLEST_CLIP, Quantizer, widened
from espnet_quant4.quantizers.registry import register


class FlooredClip(torch.autograd.Function):
    """The clip, kept above zero; the gradient passes, so that a clip can come back from there."""

    @staticmethod
    def forward(ctx: Any, clip: torch.Tensor) -> torch.Tensor:
        return widened(clip).clamp_min(SMALLEST_CLIP)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient


@register("pact")
class PactQuantizer(Quantizer):
    """A clip learned from the values outside it.

    Args:
        init: how calibration sets the first clip: ``mse``, ``percentile`` or ``max``.
        init_percentile: in percent.
    """

    learned = True
    gradient_rule = GradientRule.LEARNED

    def clip_for(self, x: torch.Tensor) -> torch.Tensor | float:
        return self.spread(apply_function(FlooredClip, self.clip_value), x)


@register("pact+")
class PactPlusQuantizer(PactQuantizer):
    """A clip learned from the values outside it and from the rounding residual inside.

    Args:
        init: how calibration sets the first clip: ``mse``, ``percentile`` or ``max``.
        init_percentile: in percent.
    """

    gradient_rule = GradientRule.LEARNED_WITH_RESIDUAL
