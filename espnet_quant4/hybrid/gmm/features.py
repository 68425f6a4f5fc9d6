"""Features of the GMM: MFCC of a data folder, normalized by speaker, with differences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from espnet_quant4.hybrid.features.speakers import normalized_by_speaker
from espnet_quant4.hybrid.kaldi_files.archives import Matrices
from espnet_quant4.text_files import read_table

# Regression over this many frames to each side, as in Kaldi's add-deltas.
DELTA_WINDOW = 2


def load_features(
    data: Path, folder: Path, splice: int = 0, transform: np.ndarray | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """Give features of every utterance, of mean 0 and variance 1 for each speaker.

    Then either differences of first and second order are appended, or frames beside it are, and a
    linear transform follows.

    Args:
        data: the data folder, for ``utt2spk``.
        folder: of ``feats.scp``, 13 MFCC a frame.
        splice: frames to each side that are put beside a frame, for a transform.
        transform: ``(dim, (2 * splice + 1) * 13)``; None for differences.

    Yields:
        Utterance and ``(frames, 39)`` or ``(frames, dim)`` float32.
    """
    raw = Matrices(folder / "feats.scp")
    for utterance, values in normalized_by_speaker(raw, read_table(data / "utt2spk")):
        if transform is None:
            yield utterance, with_deltas(values.astype(np.float32))
        else:
            yield utterance, (splice_frames(values, splice) @ transform.T).astype(np.float32)


def with_deltas(features: np.ndarray) -> np.ndarray:
    """Append regression coefficients of first and second order: ``(frames, 3 * dim)``."""
    first = _regression(features)
    return np.concatenate([features, first, _regression(first)], axis=1)


def splice_frames(features: np.ndarray, context: int) -> np.ndarray:
    """Put ``context`` frames to each side beside a frame; the ends are repeated."""
    padded = np.pad(features, ((context, context), (0, 0)), mode="edge")
    count = len(features)
    return np.concatenate([padded[i : i + count] for i in range(2 * context + 1)], axis=1)


def _regression(features: np.ndarray) -> np.ndarray:
    window = DELTA_WINDOW
    padded = np.pad(features, ((window, window), (0, 0)), mode="edge")
    count = len(features)
    shifted = {step: padded[window + step :][:count] for step in range(-window, window + 1)}
    total = sum(step * (shifted[step] - shifted[-step]) for step in range(1, window + 1))
    return (total / (2 * sum(step**2 for step in range(1, window + 1)))).astype(features.dtype)
