"""How probable each pdf id is before anything is heard, which turns posteriors into likelihoods.

p(x | s) is proportional to p(s | x) / p(s) (Bourlard and Morgan, "Connectionist Speech Recognition",
1994). p(s) comes from the counts of the alignment that the network was trained on, or from the mean of
the network's own posteriors. Files are Kaldi's text vectors: ``[ v0 v1 ... ]``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from espnet_quant4.text_files import read_text

#: Log prior of a pdf id that was never seen in training: subtracted, it lets the id never win. Kaldi's
#: value (``nnet-pdf-prior.cc``): the root of the largest float32, which stays finite when scaled.
UNSEEN_LOG_PRIOR = float(np.sqrt(np.finfo(np.float32).max))
#: Relative frequency up to which an id counts as never seen, as in Kaldi.
DEFAULT_FLOOR = 1e-10


def log_prior(frequencies: np.ndarray, floor: float = DEFAULT_FLOOR) -> np.ndarray:
    """Return the logarithms of relative frequencies; warns of ids that were never seen.

    Args:
        frequencies: ``(num_pdfs,)``, 0 or above, of any sum: frames of each pdf id, or mean
            posteriors.
        floor: relative frequency up to which an id counts as never seen.

    Returns:
        ``(num_pdfs,)`` float32, natural logarithms; ``UNSEEN_LOG_PRIOR`` for ids never seen.

    Raises:
        ValueError: for values that are no frequencies, and for a floor outside ``[0, 1)``.
    """
    frequencies = np.asarray(frequencies, dtype=np.float64)
    if frequencies.ndim != 1 or not len(frequencies):
        raise ValueError(f"prior: shape {frequencies.shape}; valid is one value a pdf id.")
    if not np.isfinite(frequencies).all() or (frequencies < 0).any() or not frequencies.any():
        raise ValueError(
            "prior: counts must be finite, 0 or above, and not all 0. Count the pdf ids of the "
            "alignment that the network was trained on (pdf_counts)."
        )
    if not 0 <= floor < 1:
        raise ValueError(f"prior floor: {floor}; valid are 0 and above, below 1.")
    relative = frequencies / frequencies.sum()
    unseen = relative <= floor
    result = np.full(len(relative), UNSEEN_LOG_PRIOR, dtype=np.float32)
    result[~unseen] = np.log(relative[~unseen])
    _warn_of(unseen)
    return result


def exclude_unseen(log_prior: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return a log prior from posteriors in which ids without training frames never win.

    A network gives such an id about the same small posterior everywhere. Divided by its mean, that is
    a middling likelihood everywhere, better than that of the wrong ids.

    Args:
        log_prior: ``(num_pdfs,)``.
        counts: ``(num_pdfs,)``: frames of each pdf id in training.

    Raises:
        ValueError: where the two are of different lengths.
    """
    if len(log_prior) != len(counts):
        raise ValueError(
            f"pdf_counts has {len(counts)} values and the prior {len(log_prior)}: they belong to "
            "different trees."
        )
    unseen = np.asarray(counts) <= 0
    _warn_of(unseen)
    return np.where(unseen, np.float32(UNSEEN_LOG_PRIOR), log_prior).astype(np.float32)


def mean_posteriors(log_posteriors: Iterable[np.ndarray]) -> np.ndarray:
    """Return the mean posterior of each pdf id over all frames.

    Args:
        log_posteriors: matrices ``(frames, num_pdfs)``, natural logarithms.

    Returns:
        ``(num_pdfs,)`` float64.

    Raises:
        ValueError: where there is no frame, or rows are no distributions.
    """
    total: np.ndarray | None = None
    frames = 0
    for matrix in log_posteriors:
        posteriors = np.exp(matrix.astype(np.float64))
        sums = posteriors.sum(axis=1)
        if not np.allclose(sums, 1.0, atol=1e-2):
            raise ValueError(
                f"log posteriors: a frame sums to {sums[np.argmax(np.abs(sums - 1))]:.3g}, not to 1. "
                "Write them without a prior: hybrid_inference without --log_prior."
            )
        total = posteriors.sum(axis=0) if total is None else total + posteriors.sum(axis=0)
        frames += len(matrix)
    if total is None or not frames:
        raise ValueError("log posteriors: no frame to average over.")
    return total / frames


def read_vector(path: str | Path) -> np.ndarray:
    """Read a Kaldi text vector.

    Returns:
        ``(n,)`` float64.

    Raises:
        ValueError: for a file that holds anything else.
    """
    text = read_text(path).strip()
    try:
        if not (text.startswith("[") and text.endswith("]")):
            raise ValueError("no brackets")
        values = np.array([float(value) for value in text[1:-1].split()], dtype=np.float64)
        if np.isnan(values).any():
            raise ValueError("NaN")
        return values
    except ValueError as error:
        raise ValueError(
            f"{path}: not a Kaldi text vector ({error}); wanted: one line [ v0 v1 ... ]."
        ) from error


def write_vector(path: str | Path, values: np.ndarray) -> None:
    """Write a Kaldi text vector; an interrupted run leaves no half file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    partial.write_text(f"[ {' '.join(f'{v:.9g}' for v in values)} ]\n", encoding="utf-8")
    os.replace(partial, path)


def _warn_of(unseen: np.ndarray) -> None:
    ids = np.flatnonzero(unseen).tolist()
    if ids:
        logging.warning(
            f"prior: {len(ids)} of {len(unseen)} pdf ids have no training frames and never win in "
            f"decoding: {', '.join(map(str, ids))}"
        )
