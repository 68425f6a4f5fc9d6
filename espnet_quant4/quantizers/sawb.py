"""Statistics-aware weight binning: ``sawb`` and ``sawb+``.

Choi et al., "Accurate and Efficient 2-bit Quantized Neural Networks", MLSys 2019: the clip of least
squared error is read from two moments, ``clip = c1 * sqrt(E[w^2]) + c2 * E|w|``. The coefficients
come from a linear fit over six distributions (normal, Laplace, uniform, logistic, triangular, von
Mises). Those for 3, 15 and 255 levels are the published ones; the others are from the same fit,
which tests/quantizers/test_sawb.py derives again.

``sawb`` zeroes the gradient of weights outside the clip; ``sawb+`` passes it, so that a weight
outside can come back (Fasoli et al., Interspeech 2021, section 2).

At 8 bits the fit over-clips what is nearly uniform, such as LSTM weights at initialization: use
``max`` or ``mse`` there.
"""

from __future__ import annotations

import torch

from espnet_quant4.kernels.fake_quantize import moments
from espnet_quant4.kernels.gradient_rules import GradientRule
from espnet_quant4.quantizers.registry import register
from espnet_quant4.quantizers.statistics import StatisticQuantizer

# bits: (c1, c2), for the grid of 2^bits - 1 levels
COEFFICIENTS = {
    2: (2.6, -1.71),
    3: (6.944, -6.307),
    4: (12.035, -12.03),
    5: (16.918, -17.799),
    6: (22.187, -24.011),
    7: (27.55, -30.37),
    8: (31.76, -35.04),
}


@register("sawb")
class SawbQuantizer(StatisticQuantizer):
    """Clip from the first two moments of the weight's magnitude.

    The formula is bounded by the mean and the largest magnitude, between which the best clip lies:
    on weights of nearly equal magnitude it would otherwise come out near or below zero.

    As an activation's quantizer it takes its clip from calibration data, by least squared error.
    """

    def __init__(self, bits: int, groups: int = 1, role: str = "weight"):
        super().__init__(bits, groups, role)

    def weight_clip(self, weight: torch.Tensor) -> torch.Tensor:
        first, second = COEFFICIENTS[self.bits]
        mean, square, largest = moments(weight)
        clip = first * square.sqrt() + second * mean
        return clip.maximum(mean).minimum(largest)


@register("sawb+")
class SawbPlusQuantizer(SawbQuantizer):
    """As ``sawb``, with the gradient passed to weights outside the clip too."""

    gradient_rule = GradientRule.FULL
