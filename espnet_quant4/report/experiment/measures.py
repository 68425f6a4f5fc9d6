"""What a quantizer does to a tensor: signal-to-quantization-noise ratio, clipping, use of the codes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from espnet_quant4.quantizers import Quantizer
from espnet_quant4.quantizers.registry import name_of
from espnet_quant4.report.experiment.histogram import SignedHistogram

# Activations of a joint network are large; this many values are looked at together.
AT_ONCE = 2**22


@dataclass(frozen=True)
class TensorMeasures:
    """One tensor under its quantizer.

    Attributes:
        name: the layer's name as schemes match it, and the tensor's: ``decoder.decoder.0.l0.hidden``.
        shape: of a weight; empty for an activation.
        quantizer: its name in schemes; empty for a tensor in float.
        bits: 32 for a tensor in float.
        clips: smallest and largest clip over the groups, in the tensor's units; None in float.
        groups: number of clips; 0 in float.
        values: how many values were looked at.
        passed_over: how many more were NaN or infinite.
        sqnr: in dB, see `Measure`; NaN where it has no value.
        clipped: share of the values of a magnitude above their clip, 0 to 1.
        codes_used: share of the ``2^bits - 1`` codes that some value of any group has, 0 to 1.
        edges: of the histogram's bins: in the tensor's units, of several groups in units of the clip.
        counts: values in each bin, one fewer.
    """

    name: str
    shape: tuple[int, ...]
    quantizer: str
    bits: int
    clips: tuple[float, float] | None
    groups: int
    values: int
    passed_over: int
    sqnr: float
    clipped: float
    codes_used: float
    edges: list[float]
    counts: list[int]

    @property
    def max_code(self) -> int:
        """The largest code, ``2^(bits-1) - 1``."""
        return 2 ** (self.bits - 1) - 1

    @property
    def in_units_of_clip(self) -> bool:
        """Whether the histogram is of ``x / clip``, as with several clips."""
        return self.groups > 1


class Measure:
    """Adds up, in float64, what the quantizer of one tensor does to it.

    ``SQNR = 10 log10(sum x^2 / sum (x - q(x))^2)`` dB over all values ``x`` of the tensor, ``q(x)``
    what the layer computes with instead; the noise of rounding alone is about ``scale^2 / 12`` a value
    (W. R. Bennett, "Spectra of Quantized Signals", Bell System Technical Journal 27, 1948), so a bit
    more is worth about 6.02 dB.  Infinite without noise, NaN where all values are zero.

    Args:
        name: of the tensor.
        quantizer: in evaluation; None for a tensor in float, of which only the histogram is made.
        shape: of a weight.
    """

    def __init__(self, name: str, quantizer: Quantizer | None, shape: tuple[int, ...] = ()):
        self.name = name
        self.quantizer = quantizer
        self.shape = shape
        self._histogram = SignedHistogram()
        self._signal = self._noise = 0.0
        self._values = self._passed_over = self._clipped = 0
        self._codes: set[int] = set()
        self._clips: tuple[float, float] | None = None

    def add_weight(self, weight: torch.Tensor) -> None:
        """Add a weight, rows first, with all its groups."""
        weight = weight.detach().float().cpu()
        finite = weight.isfinite()
        if not bool(finite.all()):
            # A clip computed from it is not finite either.
            self._passed_over += int((~finite).sum())
            weight = weight.masked_fill(~finite, 0.0)
        self._add(weight)

    def add_activation(self, x: torch.Tensor) -> None:
        """Add activations of any shape; may be called for batch after batch."""
        x = x.detach().float().cpu().flatten()
        finite = x.isfinite()
        self._passed_over += int((~finite).sum())
        for part in x[finite].split(AT_ONCE):
            self._add(part)

    def _add(self, x: torch.Tensor) -> None:
        with torch.no_grad():
            self._add_detached(x)

    def _add_detached(self, x: torch.Tensor) -> None:
        self._values += x.numel()
        if self.quantizer is None or x.numel() == 0:
            self._histogram.add(x)
            return
        rounded = self.quantizer.quantize(x)
        clip = self.quantizer.clip(x).detach()
        self._clips = float(clip.min()), float(clip.max())
        clips = self.quantizer.spread(clip, x)
        exact = x.double()
        self._signal += float(exact.square().sum())
        self._noise += float((exact - rounded.double()).square().sum())
        self._clipped += int((x.abs() > clips).sum())
        self._codes |= set(self.quantizer.codes(x).unique().tolist())
        self._histogram.add(x / clips if self.quantizer.groups > 1 else x)

    def result(self) -> TensorMeasures:
        """Return the measures of all that was added."""
        quantizer = self.quantizer
        edges, counts = self._histogram.shown()
        codes = 1 if quantizer is None else 2 * quantizer.max_code + 1
        return TensorMeasures(
            name=self.name,
            shape=self.shape,
            quantizer="" if quantizer is None else name_of(quantizer),
            bits=32 if quantizer is None else quantizer.bits,
            clips=self._clips,
            groups=0 if quantizer is None else quantizer.groups,
            values=self._values,
            passed_over=self._passed_over,
            sqnr=math.nan if quantizer is None else in_decibel(self._signal, self._noise),
            clipped=math.nan if quantizer is None else self._clipped / max(self._values, 1),
            codes_used=math.nan if quantizer is None else len(self._codes) / codes,
            edges=edges,
            counts=counts,
        )


def in_decibel(signal: float, noise: float) -> float:
    """Return ``10 log10(signal / noise)``: infinite without noise, NaN without signal."""
    if signal == 0:
        return math.nan
    return math.inf if noise == 0 else 10 * math.log10(signal / noise)


def worst_first(tensors: list[TensorMeasures]) -> list[TensorMeasures]:
    """Sort by signal-to-quantization-noise ratio, lowest first; those without one come last."""
    return sorted(tensors, key=lambda t: (math.isnan(t.sqnr), t.sqnr, t.name))
