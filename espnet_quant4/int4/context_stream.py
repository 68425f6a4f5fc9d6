"""A preencoder over frames that come in by and by."""

from __future__ import annotations

from typing import Any

import torch


class ContextStream:
    """Holds back the frames that a preencoder still looks at from their neighbours.

    At the ends of the recording the preencoder sees the ends, so it does there what it does for the
    whole.

    Args:
        preencoder: maps ``(1, T, F)`` and ``(1,)`` lengths to as many frames; None: as they come.
        reach: frames before and after a frame that its result depends on.
    """

    def __init__(self, preencoder: Any, reach: tuple[int, int]):
        self.preencoder = preencoder
        self.left, self.right = reach
        self._held: torch.Tensor | None = None
        self._first = 0  # of the recording's frames, at the start of what is held
        self._given = 0

    def accept(self, feats: torch.Tensor | None, is_last: bool) -> torch.Tensor | None:
        """Take the next frames ``(T, F)``; return those that are settled, None for none."""
        if self.preencoder is None:
            return feats
        parts = [part for part in (self._held, feats) if part is not None]
        if not parts:
            return None
        held = torch.cat(parts)
        total = self._first + len(held)
        settled = total if is_last else total - self.right
        found = None
        if settled > self._given:
            lengths = torch.tensor([len(held)], device=held.device)
            out, _ = self.preencoder(held.unsqueeze(0), lengths)
            found = out[0, self._given - self._first : settled - self._first].clone()
            self._given = settled
        keep_from = max(self._first, self._given - self.left)
        # A copy: a view would keep all that came.
        self._held = held[keep_from - self._first :].clone()
        self._first = keep_from
        return found


def reach_of(preencoder: Any) -> tuple[int, int] | None:
    """Return how many frames before and after a frame a preencoder looks at; None where not known."""
    from espnet2.asr.preencoder.linear import LinearProjection

    if preencoder is None or isinstance(preencoder, LinearProjection):
        return 0, 0
    found: tuple[int, int] | None = getattr(preencoder, "reach", None)
    return found
