"""Clips from data: histograms of magnitudes, and what is read from them."""

from __future__ import annotations

import torch

BINS = 2048
CANDIDATES = 200


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
        self._widen(self.maximum)
        self._put(magnitudes, finite.to(torch.float64))

    def _put(self, values: torch.Tensor, weights: torch.Tensor) -> None:
        position = values / self.upper.clamp_min(torch.finfo(torch.float32).tiny).unsqueeze(1)
        index = (position * BINS).long().clamp_(0, BINS - 1)
        self.counts.scatter_add_(1, index, weights)

    def _widen(self, maximum: torch.Tensor) -> None:
        if bool((maximum <= self.upper).all()):
            return
        old_counts, old_centers = self.counts, self.centers()
        self.upper = torch.maximum(self.upper, maximum)
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
        """Return the clip of least squared error among fractions of the maximum, ``(groups,)``."""
        centers = self.centers().double()
        best_error = torch.full_like(self.maximum, torch.inf, dtype=torch.float64)
        best_clip = self.maximum.clone()
        for fraction in torch.linspace(1.0 / CANDIDATES, 1.0, CANDIDATES).tolist():
            clip = (self.maximum * fraction).double().clamp_min(1e-30).unsqueeze(1)
            scale = clip / max_code
            rounded = (centers.minimum(clip) / scale).round() * scale
            error = ((rounded - centers).square() * self.counts).sum(dim=1)
            better = error < best_error
            best_error = torch.where(better, error, best_error)
            best_clip = torch.where(better, clip.squeeze(1).float(), best_clip)
        return best_clip
