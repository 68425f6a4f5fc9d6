"""Histogram of signed values whose range grows with the data."""

from __future__ import annotations

import math

import torch

BINS = 4096
# Fewer than this many bins within the range of the data would hide the shape.
SHOWN = 64


class SignedHistogram:
    """Counts values in equal bins over ``-upper .. upper``; a bin holds its lower edge.

    The range grows by doubling, so that bins fall together in pairs and no count moves.
    """

    def __init__(self) -> None:
        self.counts = torch.zeros(BINS, dtype=torch.int64)
        self.upper = 0.0
        self.largest = 0.0

    def add(self, values: torch.Tensor) -> None:
        """Add finite values of any shape, float32."""
        if values.numel() == 0:
            return
        values = values.flatten().double()
        self._widen(float(values.abs().amax()))
        position = (values / (self.upper or 1.0) + 1.0) * (BINS // 2)
        self.counts += torch.bincount(position.long().clamp_(0, BINS - 1), minlength=BINS)

    def _widen(self, largest: float) -> None:
        self.largest = max(self.largest, largest)
        if self.upper == 0 and largest > 0:
            # The next power of two, so that edges are numbers without rounding.  Of zeros, which may
            # have been before, only the middle bin knows, whatever the range is.
            self.upper = 2.0 ** math.frexp(largest)[1]
        while 0 < self.upper <= largest:
            # Each half of the new range is the old range's half and as much beyond it.
            paired = self.counts.view(-1, 2).sum(dim=1)
            self.counts = torch.nn.functional.pad(paired, (BINS // 4, BINS // 4))
            self.upper *= 2

    def shown(self) -> tuple[list[float], list[int]]:
        """Return edges (one more) and counts of the 64 to 128 bins that span the data.

        One bin around zero where there is nothing but zeros.
        """
        if self.largest == 0:
            return [-0.5, 0.5], [int(self.counts.sum())]
        width = self.upper / SHOWN
        counts = self.counts.view(2 * SHOWN, -1).sum(dim=1).tolist()
        reach = math.floor(self.largest / width) + 1
        edges = [width * step for step in range(-reach, reach + 1)]
        return edges, counts[SHOWN - reach : SHOWN + reach]
