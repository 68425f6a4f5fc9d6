"""Clips that are constants or plain statistics: ``fix``, ``max``, ``percentile``, ``mse``.

The gradient passes inside the clip and is zero outside.
"""

from __future__ import annotations

import torch
import torch.distributed

from espnet_quant4.kernels.gradient_rules import GradientRule
from espnet_quant4.quantizers.base import Quantizer, check, check_number, widened
from espnet_quant4.quantizers.clip_search import LinearHistogram, percentile_of
from espnet_quant4.quantizers.registry import register


class StatisticQuantizer(Quantizer):
    """Base of quantizers whose clip has no gradient."""

    follows_weight = True
    gradient_rule = GradientRule.CLIPPED


@register("fix")
class FixedQuantizer(StatisticQuantizer):
    """A constant clip, for what is bounded by construction, such as hidden states (``|h| < 1``).

    Args:
        clip: the constant, above 0. Where a scheme leaves it out, the bound of the tensor takes its
            place, if it has one.
        allow_clipping: whether calibration may find more than 1 % of the values beyond the constant,
            which is an error otherwise.
    """

    follows_weight = False
    bound_option = "clip"

    def __init__(
        self,
        bits: int,
        groups: int = 1,
        role: str = "weight",
        clip: float = 1.0,
        allow_clipping: bool = False,
    ):
        super().__init__(bits, groups, role)
        check_number("clip", clip)
        check(isinstance(allow_clipping, bool), "allow_clipping", allow_clipping, "true, false")
        self.allow_clipping = allow_clipping
        self.constant = float(clip)
        with torch.no_grad():
            self.clip_value.fill_(self.constant)
            self.calibrated.fill_(1)

    @property
    def settings(self) -> dict[str, float]:
        return {"clip": self.constant}

    def clip_for(self, x: torch.Tensor) -> torch.Tensor | float:
        return self.constant

    def finish_calibration(self) -> bool:
        self._histogram = None
        return False

    def is_same_constant(self, other: Quantizer) -> bool:
        return (
            isinstance(other, FixedQuantizer)
            and (other.bits, other.constant) == (self.bits, self.constant)
            and other.calibrating == self.calibrating
        )

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):  # type: ignore[no-untyped-def]
        # The scheme's constant holds, also against a checkpoint trained with another quantizer.
        state_dict = dict(state_dict)
        state_dict[f"{prefix}clip_value"] = torch.full_like(self.clip_value, self.constant)
        state_dict[f"{prefix}calibrated"] = torch.ones_like(self.calibrated)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


@register("max")
class MaxQuantizer(StatisticQuantizer):
    """The largest magnitude: of the weight as it is, or of all activations seen in training."""

    def __init__(self, bits: int, groups: int = 1, role: str = "weight"):
        super().__init__(bits, groups, role, init="max")

    def weight_clip(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.abs().amax(dim=1)

    def update(self, x: torch.Tensor) -> None:
        magnitudes = widened(x.detach()).abs()
        largest = magnitudes.new_zeros(1)
        if magnitudes.numel():
            largest += magnitudes.masked_fill(~magnitudes.isfinite(), 0.0).amax()
        # All take part, also with an empty batch: the others wait.
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
        with torch.no_grad():
            if self.is_calibrated:
                self.clip_value.copy_(torch.maximum(self.clip_value, largest))
            elif bool(largest > 0):
                self.clip_value.copy_(largest)
                self.calibrated.fill_(1)


@register("percentile")
class PercentileQuantizer(StatisticQuantizer):
    """A percentile of the magnitudes: of the weight as it is, or of calibration data.

    Args:
        percentile: in percent, above 0, to 100.
    """

    def __init__(self, bits: int, groups: int = 1, role: str = "weight", percentile: float = 99.9):
        check_number("percentile", percentile, 100)
        super().__init__(bits, groups, role, init="percentile", init_percentile=percentile)

    @property
    def settings(self) -> dict[str, float]:
        return {"percentile": self.init_percentile}

    def weight_clip(self, weight: torch.Tensor) -> torch.Tensor:
        return percentile_of(weight.abs(), self.init_percentile)


@register("mse")
class MeanSquaredErrorQuantizer(StatisticQuantizer):
    """The clip of least squared rounding error: of the weight as it is, or of calibration data."""

    def __init__(self, bits: int, groups: int = 1, role: str = "weight"):
        super().__init__(bits, groups, role, init="mse")

    def weight_clip(self, weight: torch.Tensor) -> torch.Tensor:
        return LinearHistogram(weight.abs()).least_squared_error(self.max_code)
