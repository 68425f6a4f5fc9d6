"""Clips from data: histograms of magnitudes, and what is read from them.

Two kinds: `Histogram` takes data as they come, whatever their range; `LinearHistogram` is of data that
are all there, such as a weight at every training step, and quicker.
"""

from __future__ import annotations

import torch

#: Bins of a linear histogram, and of each octave of one that grows.
BINS = 2048
CANDIDATES = 200
# Below the smallest of these fractions of the largest magnitude the search goes on in ratios: a clip
# far below the maximum is best where few of very many values lie far out.
OCTAVES_BELOW = 20
STEPS_PER_OCTAVE = 16
LARGEST_TABLE = 2**18
# A float64 without so many of its bits is a key: equal for all numbers of a bin, one more in the next.
SHIFT = 52 - (BINS.bit_length() - 1)
# Smaller magnitudes count as zero: float32 has none.
SMALLEST_KEY = (1023 - 149) * BINS


def percentile_of(magnitudes: torch.Tensor, percentile: float) -> torch.Tensor:
    """Return the magnitude up to which that percentage of the values lies, ``(groups,)``.

    Args:
        magnitudes: ``(groups, elements)``, at least one element.
        percentile: in percent, above 0, to 100.
    """
    elements = magnitudes.size(1)
    rank = min(max(round(percentile / 100 * elements), 1), elements)
    return magnitudes.kthvalue(rank, dim=1).values


class _Bins:
    """Counts ``(groups, bins)`` float64 of magnitudes, and the largest of each group ``(groups,)``.

    Positions are in units of the group's largest magnitude.
    """

    counts: torch.Tensor
    maximum: torch.Tensor

    def centers(self) -> torch.Tensor:
        """Return the middles of the bins, float64, ``(groups, bins)`` or of one shape for all."""
        raise NotImplementedError

    def count_below(self, positions: torch.Tensor) -> torch.Tensor:
        """Return how many bins have their middle below each of ``(groups, ...)`` float64, int64."""
        raise NotImplementedError

    def clip(self, method: str, max_code: int, percentile: float) -> torch.Tensor:
        """Return the clips ``(groups,)`` by ``max``, ``percentile`` or ``mse``."""
        if method == "max":
            return self.maximum
        if method == "percentile":
            return self.percentile(percentile)
        return self.least_squared_error(max_code)

    def share_above(self, clip: torch.Tensor) -> torch.Tensor:
        """Return the share of the values beyond clips ``(groups,)``, to the width of a bin."""
        clip = clip.detach().to(self.maximum)
        unit = torch.where(self.maximum > 0, self.maximum, 1.0)
        beyond = (self.counts * (self.centers() > (clip / unit).unsqueeze(1))).sum(dim=1)
        share = beyond / self.counts.sum(dim=1).clamp_min(1.0)
        return share.masked_fill(self.maximum <= clip, 0.0)

    def percentile(self, percentile: float) -> torch.Tensor:
        """Return the magnitude below which that percentage of the values lies, ``(groups,)``."""
        raise NotImplementedError

    def fractions(self) -> torch.Tensor:
        """Return the clips to try, in units of the largest magnitude, float64."""
        steps = torch.arange(1, CANDIDATES + 1, device=self.counts.device, dtype=torch.float64)
        return steps / CANDIDATES

    def least_squared_error(self, max_code: int) -> torch.Tensor:
        """Return the clip of least squared error among fractions of the maximum, ``(groups,)``.

        All values that round to a level are neighbours, so their squared error comes from the sums
        of their counts ``n``, of ``x`` and of ``x^2``: ``sum x^2 - 2 level sum x + level^2 n``.
        """
        groups, bins = self.counts.shape
        device = self.counts.device
        middles = self.centers()
        powers = [self.counts, self.counts * middles, self.counts * middles.square()]
        sums = [torch.nn.functional.pad(p.cumsum(dim=1), (1, 0)) for p in powers]
        levels = torch.arange(max_code + 1, device=device, dtype=torch.float64)
        best_error = torch.full((groups,), torch.inf, device=device, dtype=torch.float64)
        best_fraction = torch.ones_like(best_error)
        # As many candidates at once as fit a few megabytes.
        for some in self.fractions().split(max(LARGEST_TABLE // (groups * (max_code + 1)), 1)):
            values = levels * (some / max_code).unsqueeze(1)
            # The bins whose middle lies below the border to the next level; all below the last one's.
            borders = (levels[:-1] + 0.5) * (some / max_code).unsqueeze(1)
            below = self.count_below(borders.expand(groups, *borders.shape))
            below = torch.nn.functional.pad(below, (1, 0))
            below = torch.nn.functional.pad(below, (0, 1), value=bins)
            count, first, second = (
                s.gather(1, below.flatten(1)).view_as(below).diff(dim=2) for s in sums
            )
            error = (second - 2 * values * first + values.square() * count).sum(dim=2)
            least, index = error.min(dim=1)
            better = least < best_error
            best_error = torch.where(better, least, best_error)
            best_fraction = torch.where(better, some[index], best_fraction)
        return (self.maximum * best_fraction).to(self.maximum.dtype)


class LinearHistogram(_Bins):
    """Bins of equal width up to the largest magnitude.

    Args:
        magnitudes: ``(groups, elements)`` float32 or float64, at least one element; what is not finite
            is passed over.
    """

    def __init__(self, magnitudes: torch.Tensor):
        finite = magnitudes.isfinite()
        magnitudes = magnitudes.masked_fill(~finite, 0.0)
        self.counts = finite.new_zeros(magnitudes.size(0), BINS, dtype=torch.float64)
        self.maximum = magnitudes.amax(dim=1)
        tiny = torch.finfo(magnitudes.dtype).tiny
        # First divided, then scaled: a maximum that is not a normal number has no inverse.
        positions = magnitudes / self.maximum.clamp_min(tiny).unsqueeze(1)
        index = (positions * BINS).long().clamp_(0, BINS - 1)
        self.counts.scatter_add_(1, index, finite.to(torch.float64))
        self._magnitudes = magnitudes

    def percentile(self, percentile: float) -> torch.Tensor:
        return percentile_of(self._magnitudes, percentile)

    def centers(self) -> torch.Tensor:
        steps = torch.arange(BINS, device=self.counts.device, dtype=torch.float64)
        return (steps + 0.5) / BINS

    def count_below(self, positions: torch.Tensor) -> torch.Tensor:
        return (positions * BINS + 0.5).long().clamp_(0, BINS)


class Histogram(_Bins):
    """Bins that are as fine for small magnitudes as for large ones, and whose range grows.

    Each octave, from a power of two to the next, is cut into `BINS` of equal width: the upper bits of a
    float64 say which it is. So no outlier makes bins coarse, what comes first does not matter, and
    growing moves nothing. Zeros have a bin of their own, the first.

    Args:
        groups: number of histograms.
    """

    def __init__(self, groups: int):
        self.groups = groups
        self.counts = torch.zeros(groups, 1, dtype=torch.float64)
        self.maximum = torch.zeros(groups, dtype=torch.float64)
        # The key of the first bin behind that of the zeros.
        self._lowest = SMALLEST_KEY

    @property
    def is_empty(self) -> bool:
        """Whether no finite value was added."""
        return float(self.counts.sum()) == 0

    def add(self, magnitudes: torch.Tensor) -> None:
        """Add magnitudes ``(groups, elements)``; what is not finite is passed over."""
        if magnitudes.numel() == 0:
            return
        finite = magnitudes.isfinite()
        # Float64 also holds as a normal number what float32 does not.
        values = magnitudes.masked_fill(~finite, 0.0).double()
        self.counts = self.counts.to(values.device)
        self.maximum = torch.maximum(self.maximum.to(values.device), values.amax(dim=1))
        keys = values.view(torch.int64) >> SHIFT
        highest = int(keys.max())
        if highest >= SMALLEST_KEY:
            lowest = int(keys.masked_fill(keys < SMALLEST_KEY, highest).min())
            self._cover(lowest, highest)
        index = keys.sub_(self._lowest - 1).clamp_min_(0)
        self.counts.scatter_add_(1, index, finite.to(torch.float64))

    def _cover(self, lowest: int, highest: int) -> None:
        """Have bins for these keys and all between."""
        bins = self.counts.size(1) - 1
        if bins == 0:
            self._lowest = lowest
        below = max(self._lowest - lowest, 0)
        above = max(highest + 1 - (self._lowest + bins), 0)
        zeros, others = self.counts.split([1, bins], dim=1)
        self.counts = torch.cat([zeros, torch.nn.functional.pad(others, (below, above))], dim=1)
        self._lowest -= below

    def _edges(self, within: float) -> torch.Tensor:
        """Return the place ``within`` each bin, from 0, its start, to 1, ``(bins,)`` float64."""
        keys = torch.arange(self.counts.size(1) - 1, device=self.counts.device) + self._lowest
        bits = (keys << SHIFT) + int(within * 2**SHIFT)
        return torch.nn.functional.pad(bits.view(torch.float64), (1, 0))

    def centers(self) -> torch.Tensor:
        # The largest lies in its bin somewhere, and nothing beyond it.
        return (self._edges(0.5) / self._unit().unsqueeze(1)).clamp_max(1.0)

    def count_below(self, positions: torch.Tensor) -> torch.Tensor:
        values = positions * self._unit().view(-1, *[1] * (positions.dim() - 1))
        keys = (values.view(torch.int64) + 2 ** (SHIFT - 1)) >> SHIFT
        return keys.sub_(self._lowest - 1).clamp_(1, self.counts.size(1))

    def _unit(self) -> torch.Tensor:
        return torch.where(self.maximum > 0, self.maximum, 1.0)

    def fractions(self) -> torch.Tensor:
        linear = super().fractions()
        steps = torch.arange(
            OCTAVES_BELOW * STEPS_PER_OCTAVE, 0, -1, device=linear.device, dtype=torch.float64
        )
        return torch.cat([linear[0] * (-steps / STEPS_PER_OCTAVE).exp2(), linear])

    def percentile(self, percentile: float) -> torch.Tensor:
        wanted = (self.counts.sum(dim=1, keepdim=True) * (percentile / 100)).round().clamp_min(1.0)
        index = torch.searchsorted(self.counts.cumsum(dim=1), wanted)
        index = index.squeeze(1).clamp_(max=self.counts.size(1) - 1)
        return torch.minimum(self._edges(1.0)[index], self.maximum)
