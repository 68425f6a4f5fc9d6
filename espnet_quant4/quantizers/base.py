"""What all quantizers share: the grid, the state, how a clip is set from data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from espnet_quant4.kernels.gradient_rules import GradientRule
from espnet_quant4.quantizers.clip_search import Histogram, LinearHistogram
from espnet_quant4.quantizers.rounding import fake_quantize, round_to_codes

ROLES = ("weight", "activation")
INITIALIZATIONS = ("mse", "percentile", "max")

# Below this a clip counts as zero; keeps scales of all-zero tensors finite.
SMALLEST_CLIP = 1e-8


class Quantizer(torch.nn.Module):
    """Base of all quantizers.

    A weight has rows; they are cut into ``groups`` equal blocks of consecutive rows with a clip
    each: 1 for one clip per tensor, 4 for one per LSTM gate, as many as rows for one per row.
    Activations have one group.

    State: ``clip_value`` ``(groups,)`` float32 (a parameter where it is learned, else a buffer) and
    ``calibrated`` ``()`` int64, above 0 once the clip has been set. ESPnet's checkpoint averaging
    adds up integer buffers and averages the others, and both stay right.

    Args:
        bits: 2 to 8.
        groups: number of clips.
        role: ``weight`` or ``activation``.
        init: how data sets the clip: ``mse`` (least squared error), ``percentile`` or ``max``.
        init_percentile: in percent, for ``init: percentile``.

    Raises:
        ValueError: for a value outside what is named above.
    """

    #: Whether the clip is a parameter.
    learned = False
    #: Whether a weight's clip is computed anew from the weight at every use, in training and
    #: evaluation alike, so that it never lags behind an optimizer step.
    follows_weight = False
    #: Whether calibration accepts that the clip cuts off more than a few values.
    allow_clipping = True
    #: The option that takes a tensor's bound where a scheme leaves it out; None: no bound is of use.
    bound_option: str | None = None
    #: Which gradient goes back. A family whose rounding or gradient is of another kind leaves this
    #: alone and overrides `fake_quantize`; a layer that reads it then trains by the reference loop.
    gradient_rule = GradientRule.NONE
    #: Called with each activation that is quantized, ``(..., F)`` without padding, if it is set.
    watcher: Callable[[torch.Tensor], None] | None = None

    def __init__(
        self,
        bits: int,
        groups: int = 1,
        role: str = "weight",
        init: str = "mse",
        init_percentile: float = 99.9,
    ):
        super().__init__()
        check(isinstance(bits, int) and 2 <= bits <= 8, "bits", bits, "2 to 8")
        check(role in ROLES, "role", role, ", ".join(ROLES))
        check(init in INITIALIZATIONS, "init", init, ", ".join(INITIALIZATIONS))
        check_number("init_percentile", init_percentile, 100)
        check(groups >= 1, "groups", groups, "1 and above")
        self.bits = bits
        self.groups = groups
        self.role = role
        self.init = init
        self.init_percentile = init_percentile
        self.calibrating = False
        #: Share of the values that calibration saw beyond the clip, 0 to 1; None before.
        self.share_cut_off: float | None = None
        self._histogram: Histogram | None = None
        if self.learned:
            self.clip_value = torch.nn.Parameter(torch.ones(groups))
        else:
            self.register_buffer("clip_value", torch.ones(groups))
        self.register_buffer("calibrated", torch.zeros((), dtype=torch.int64))
        # Reading a tensor at every use would wait for the device.
        self._known_calibrated = False

    @property
    def settings(self) -> dict[str, float]:
        """What beside bits and clips sets this quantizer off from others of its family, by option."""
        return {}

    @property
    def max_code(self) -> int:
        """The largest code, ``2^(bits-1) - 1``."""
        return 2 ** (self.bits - 1) - 1

    @property
    def is_calibrated(self) -> bool:
        """Whether the clip is set: from data, a checkpoint or by construction."""
        if self.role == "weight" and self.follows_weight:
            return True
        if not self._known_calibrated:
            self._known_calibrated = bool(self.calibrated > 0)
        return self._known_calibrated

    # ---- the clip ---------------------------------------------------------------------------

    def weight_clip(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the clip ``(groups,)`` of a weight seen as ``(groups, elements)``.

        Args:
            weight: float32, or float64 in a model of double precision.
        """
        raise NotImplementedError

    def clip(self, x: torch.Tensor | None = None) -> torch.Tensor:
        """Return the clip ``(groups,)``, above 0: float32, or float64 in a model of double precision.

        Args:
            x: the weight, which those need that compute their clip from it. A learned clip that was
                not set yet is set from it too.
        """
        if self.role == "weight" and self.follows_weight:
            if x is None:
                raise ValueError(
                    f"{type(self).__name__}.clip() computes the clip from the weight: pass it"
                )
            if x.numel() == 0:
                return widened(x.detach()).new_full((self.groups,), SMALLEST_CLIP)
            with torch.no_grad():
                clip = self.weight_clip(widened(x.detach()).reshape(self.groups, -1))
            return clip.clamp_min(SMALLEST_CLIP)
        if x is not None:
            self._set_clip_of_weight(x)
        return widened(self.clip_value).clamp_min(SMALLEST_CLIP)

    def _set_clip_of_weight(self, x: torch.Tensor) -> None:
        """Set a clip that was not set yet from the weight, which is all the data that it needs."""
        if self.role == "weight" and not self.is_calibrated:
            magnitudes = widened(x.detach()).abs().reshape(self.groups, -1)
            if magnitudes.numel():
                self.set_clip_from(LinearHistogram(magnitudes))

    def scale(self, x: torch.Tensor | None = None) -> torch.Tensor:
        """Return the step between neighbouring levels, ``clip / max_code``, ``(groups,)``."""
        return self.clip(x) / self.max_code

    def spread(self, clip: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Shape a clip ``(groups,)`` so that it broadcasts against ``x``."""
        if self.groups == 1:
            return clip
        if x.size(0) % self.groups:
            raise ValueError(
                f"{type(self).__name__}: {x.size(0)} rows cannot be cut into {self.groups} groups"
            )
        rows = clip.repeat_interleave(x.size(0) // self.groups)
        return rows.view(-1, *[1] * (x.dim() - 1))

    # ---- statistics -------------------------------------------------------------------------

    def observe(self, x: torch.Tensor) -> None:
        """Take note of data: a histogram while calibrating, else what the family keeps track of.

        Args:
            x: any shape; what is not finite is passed over.
        """
        if not self.calibrating:
            self.update(x)
        elif self.role == "activation":
            if self._histogram is None:
                self._histogram = Histogram(1)
            self._histogram.add(x.detach().abs().reshape(1, -1))

    def update(self, x: torch.Tensor) -> None:
        """Follow the data of a training step; most quantizers do not."""

    def set_clip_from(self, histogram: Histogram | LinearHistogram) -> None:
        """Set the clip from magnitudes, by the method ``init``."""
        clip = histogram.clip(self.init, self.max_code, self.init_percentile)
        with torch.no_grad():
            self.clip_value.copy_(clip.clamp_min(SMALLEST_CLIP))
            self.calibrated.fill_(1)

    def finish_calibration(self) -> bool:
        """Set the clip from what was observed; False where nothing was, or nothing but zeros."""
        histogram, self._histogram = self._histogram, None
        if histogram is None or histogram.is_empty or not bool(histogram.maximum.any()):
            return False
        self.set_clip_from(histogram)
        return True

    def reach(self, clip: torch.Tensor) -> torch.Tensor:
        """Return the magnitude from which on a clip cuts off, half a step beyond it.

        Up to there, rounding inside the clip errs as much.
        """
        return clip * (1 + 0.5 / self.max_code)

    def share_beyond(self, histogram: Histogram) -> float:
        """Return the share of magnitudes, 0 to 1, that the clip cuts off."""
        return float(histogram.share_above(self.reach(self.clip())).max())

    # ---- quantization -----------------------------------------------------------------------

    def clip_for(self, x: torch.Tensor) -> torch.Tensor | float:
        """Return the clip as it enters the rounding of ``x``, with the gradient that it learns by.

        Args:
            x: what is to be quantized, float32 or float64.

        Returns:
            A number, or a tensor that broadcasts against ``x``.
        """
        return self.spread(self.clip(x), x)

    def fake_quantize(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x``, float32 or float64, on the grid, with this family's gradients."""
        return fake_quantize(x, self.clip_for(x), self.max_code, self.gradient_rule)

    def fused_form(self, x: torch.Tensor) -> tuple[torch.Tensor | float, GradientRule] | None:
        """Return all that a fused kernel needs to do what `quantize` does; None where that is more.

        Args:
            x: what `quantize` would get; of an activation only the shape is looked at.

        Returns:
            The clip with its gradient, or a number, and the gradient's rule.
        """
        if self.calibrating:
            return 1.0, GradientRule.NONE
        own = type(self)
        is_plain = (
            own.quantize is Quantizer.quantize and own.fake_quantize is Quantizer.fake_quantize
        )
        if not is_plain or self.gradient_rule == GradientRule.NONE:
            return None
        self._set_clip_of_weight(x)
        return self.clip_for(x), self.gradient_rule

    def quantize(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` rounded to the grid by the clip as it stands.

        In float32, also for half precision and under autocast; float64 stays float64. The layers of
        `espnet_quant4.nn` take the result back to the precision of a model that was converted.

        While calibrating, ``x`` is returned as it is.
        """
        if self.calibrating:
            return x
        self._set_clip_of_weight(x)
        return self.fake_quantize(widened(x))

    def codes(self, x: torch.Tensor) -> torch.Tensor:
        """Return the codes of ``x``, int8, each in ``-max_code .. max_code``.

        Raises:
            ValueError: for NaN, which has no code.
        """
        with torch.no_grad():
            codes = round_to_codes(widened(x), self.spread(self.clip(x), x), self.max_code)
            if bool(codes.isnan().any()):
                raise ValueError(
                    f"{type(self).__name__}.codes(): {int(codes.isnan().sum())} of {codes.numel()} "
                    "values are NaN, which has no code; check where x comes from."
                )
            return codes.to(torch.int8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.role == "activation" and (self.training or self.calibrating):
            self.observe(x)
        return self.quantize(x)

    def is_same_constant(self, other: Quantizer) -> bool:
        """Whether both always map equal values to equal values, whatever data they see."""
        return False

    # ---- state ------------------------------------------------------------------------------

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        self._known_calibrated = False
        loaded = state_dict.get(f"{prefix}clip_value")
        if self.role == "weight" and loaded is not None and loaded.shape != self.clip_value.shape:
            # From a scheme of other granularity. Its clips cannot be taken over; the weight, which
            # comes along, gives them anew.
            state_dict = dict(state_dict)
            state_dict[f"{prefix}clip_value"] = self.clip_value.detach().clone()
            state_dict[f"{prefix}calibrated"] = torch.zeros_like(self.calibrated)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        # Copies and pickles leave out what can be computed again.
        return {k: v for k, v in self.__dict__.items() if k != "_kept_weight"}

    def train(self, mode: bool = True) -> Quantizer:
        self.__dict__.pop("_kept_weight", None)
        return super().train(mode)

    def extra_repr(self) -> str:
        return f"bits={self.bits}, groups={self.groups}, role={self.role}"


def widened(x: torch.Tensor) -> torch.Tensor:
    """Return a tensor in float32 where it is narrower; float32 and float64 stay as they are.

    A scale in half precision would move codes, and its range is soon left.
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


def check(is_valid: bool, name: str, value: Any, choices: str) -> None:
    """Raise ValueError for a value that is not valid."""
    if not is_valid:
        raise ValueError(f"{name}: {value!r}; valid: {choices}")


def check_number(name: str, value: Any, largest: float = math.inf) -> None:
    """Raise ValueError for what is not a finite number above 0, up to ``largest``."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    choices = "numbers above 0" + ("" if largest == math.inf else f", to {largest:g}")
    check(is_number and 0 < value <= largest and value < math.inf, name, value, choices)
