"""Alignments as runs: stretches of frames that share a pdf id."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def collapse(pdf_ids: Ints) -> tuple[Ints, Ints, Ints]:
    """Return the pdf id, the first frame and one past the last frame of each run.

    Args:
        pdf_ids: (frames,), at least one.
    """
    starts = np.flatnonzero(np.diff(pdf_ids, prepend=pdf_ids[0] - 1))
    return pdf_ids[starts], starts, np.append(starts[1:], len(pdf_ids))


def expand(counts: Ints) -> tuple[Ints, Ints]:
    """Return, for ``counts`` items of each owner, whose each is and which of its owner's it is.

    Example:
        counts 2, 0, 1 give owners 0, 0, 2 and ranks 0, 1, 0.
    """
    owner = np.repeat(np.arange(len(counts)), counts)
    first = np.cumsum(counts) - counts
    return owner, np.arange(len(owner)) - first[owner]
