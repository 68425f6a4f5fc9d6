"""Clips from data: histograms of magnitudes, and what is read from them."""

from __future__ import annotations

import torch

BINS = 2048
CANDIDATES = 200
LARGEST_TABLE = 2**18


class Histogram:
    """Histograms of magnitudes, one for each group, whose range grows with the data.

    Args:
        groups: number of histograms.
    """

    def __init__(self, groups: int):
        self.groups = groups
        self.counts = torch.zeros(groups, BINS, dtype=torch.float64)
        self.upper = torch.zeros(groups)
        self.maximum = torch.zeros(groups)

    @property
    def is_empty(self) -> bool:
        """Whether no finite value was added."""
        return float(self.counts.sum()) == 0

    def add(self, magnitudes: torch.Tensor) -> None:
        """Add magnitudes ``(groups, elements)``; what is not finite is passed over."""
        finite = magnitudes.isfinite()
        magnitudes = magnitudes.masked_fill(~finite, 0.0)
        if magnitudes.numel() == 0:
            return
        self.counts = self.counts.to(magnitudes.device)
        self.upper = self.upper.to(magnitudes.device)
        self.maximum = torch.maximum(self.maximum.to(magnitudes.device), magnitudes.amax(dim=1))
        self._widen()
        self._put(magnitudes, finite.to(torch.float64))

    def _put(self, values: torch.Tensor, weights: torch.Tensor) -> None:
        position = values / self.upper.clamp_min(torch.finfo(torch.float32).tiny).unsqueeze(1)
        index = (position * BINS).long().clamp_(0, BINS - 1)
        self.counts.scatter_add_(1, index, weights)

    def _widen(self) -> None:
        if bool((self.maximum <= self.upper).all()):
            return
        old_counts, old_centers = self.counts, self.centers()
        # By doubling, so that whole bins fall together: any other factor moves what was counted, and
        # many small ones move it far.
        doublings = (self.maximum / self.upper).log2().ceil().clamp_min(0.0)
        self.upper = torch.where(self.upper > 0, self.upper * doublings.exp2(), self.maximum)
        self.counts = torch.zeros_like(old_counts)
        self._put(old_centers, old_counts)

    def centers(self) -> torch.Tensor:
        """Return the middles of the bins, ``(groups, BINS)``."""
        steps = torch.arange(BINS, device=self.upper.device) + 0.5
        return self.upper.unsqueeze(1) * steps / BINS

    def clip(self, method: str, max_code: int, percentile: float) -> torch.Tensor:
        """Return the clips ``(groups,)`` by ``max``, ``percentile`` or ``mse``."""
        if method == "max":
            return self.maximum
        if method == "percentile":
            return self.percentile(percentile)
        return self.least_squared_error(max_code)

    def percentile(self, percentile: float) -> torch.Tensor:
        """Return the magnitude below which that percentage of the values lies, ``(groups,)``."""
        wanted = self.counts.sum(dim=1, keepdim=True) * (percentile / 100)
        index = torch.searchsorted(self.counts.cumsum(dim=1), wanted).clamp_(max=BINS - 1)
        edge = (index.squeeze(1) + 1) * self.upper / BINS
        return torch.minimum(edge, self.maximum)

    def least_squared_error(self, max_code: int) -> torch.Tensor:
        """Return the clip of least squared error among fractions of the maximum, ``(groups,)``.

        All values that round to a level are neighbours, so their squared error comes from the sums
        of their counts ``n``, of ``x`` and of ``x^2``: ``sum x^2 - 2 level sum x + level^2 n``.
        """
        device = self.counts.device
        width = (self.upper.double() / BINS).unsqueeze(1)
        # In units of a bin: its middle is index + 0.5.
        middles = torch.arange(BINS, device=device, dtype=torch.float64) + 0.5
        powers = [self.counts * middles**power for power in range(3)]
        sums = [torch.nn.functional.pad(p.cumsum(dim=1), (1, 0)) for p in powers]
        levels = torch.arange(max_code + 1, device=device, dtype=torch.float64)
        largest = (self.maximum.double().unsqueeze(1) / width.clamp_min(1e-300)).unsqueeze(2)
        best_error = torch.full((self.groups,), torch.inf, device=device, dtype=torch.float64)
        best_clip = self.maximum.clone()
        fractions = torch.linspace(1.0 / CANDIDATES, 1.0, CANDIDATES, device=device)
        # As many candidates at once as fit a few megabytes.
        for some in fractions.split(max(LARGEST_TABLE // (self.groups * (max_code + 1)), 1)):
            scale = largest * (some.double() / max_code).unsqueeze(1)
            # The bins whose middle lies below the border to the next level; all below the last one's.
            below = ((levels[:-1] + 0.5) * scale + 0.5).long().clamp_(0, BINS)
            below = torch.nn.functional.pad(below, (1, 0))
            below = torch.nn.functional.pad(below, (0, 1), value=BINS)
            count, first, second = (
                s.gather(1, below.flatten(1)).view_as(below).diff(dim=2) for s in sums
            )
            values = levels * scale
            error = (second - 2 * values * first + values.square() * count).sum(dim=2)
            least, index = error.min(dim=1)
            better = least < best_error
            best_error = torch.where(better, least, best_error)
            best_clip = torch.where(better, self.maximum * some[index], best_clip)
        return best_clip
