"""``lsq``: Esser et al., "Learned Step Size Quantization", ICLR 2020.

LSQ learns the step ``s``; here the clip ``a = max_code * s`` is the parameter, so ``dq/da`` is LSQ's
``dq/ds / max_code``. LSQ's gradient scale ``g = 1 / sqrt(N * max_code)`` (section 2.2, N elements a
group) is applied to the gradient of the clip, times ``max_code^2``: gradient descent, with or without
momentum, then moves ``s`` exactly as it would if ``s`` were the parameter. (Adam divides any factor
out; there the clip moves by the learning rate, in units of the clip instead of the step.)
"""

from __future__ import annotations

from typing import Any

import torch

from espnet_quant4.kernels.tracing import apply_function
from espnet_quant4.quantizers.pact import FlooredClip, PactPlusQuantizer
from espnet_quant4.quantizers.registry import register


class ScaledGradient(torch.autograd.Function):
    """Identity whose gradient is multiplied by a constant."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return gradient * ctx.factor, None


@register("lsq")
class LsqQuantizer(PactPlusQuantizer):
    """A learned step size with the gradient scale of its paper.

    Args:
        init: how calibration sets the first clip: ``mse``, ``percentile`` or ``max``.
        init_percentile: in percent.
    """

    def clip_for(self, x: torch.Tensor) -> torch.Tensor | float:
        elements = max(x.numel() // self.groups, 1)
        factor = self.max_code**2 / (elements * self.max_code) ** 0.5
        scaled = apply_function(ScaledGradient, self.clip_value, factor)
        return self.spread(apply_function(FlooredClip, scaled), x)
