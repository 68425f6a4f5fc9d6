"""Linear discriminant analysis of spliced frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import kaldiio
import numpy as np

from espnet_quant4.hybrid.kaldi_files.archives import DAMAGED, describe
from espnet_quant4.hybrid.kaldi_files.tokens import KaldiFileError


@dataclass(frozen=True)
class Transform:
    """A linear transform of a frame with its neighbours.

    Attributes:
        matrix: ``(dim, (2 * splice + 1) * 13)`` float64.
        splice: frames to each side.
    """

    matrix: np.ndarray
    splice: int

    @classmethod
    def identity(cls, splice: int = 4, size: int = 13) -> Transform:
        """Return one that changes nothing."""
        return cls(np.eye((2 * splice + 1) * size), splice)

    def write(self, path: Path) -> None:
        """Write a Kaldi matrix, as ``final.mat``."""
        kaldiio.save_mat(str(path), self.matrix.astype(np.float32))

    @classmethod
    def read(cls, path: Path, size: int = 13) -> Transform:
        """Read what `write` wrote.

        Raises:
            KaldiFileError: for a damaged file.
        """
        try:
            matrix = np.asarray(kaldiio.load_mat(str(path))).astype(np.float64)
        except DAMAGED as error:
            raise KaldiFileError(
                f"{path}: no matrix, or a damaged one ({describe(error)}); make the model anew."
            ) from error
        if matrix.ndim != 2:
            raise KaldiFileError(f"{path}: shape {matrix.shape}; a matrix is wanted.")
        return cls(matrix, (matrix.shape[1] // size - 1) // 2)


def estimate_transform(
    features: Mapping[str, np.ndarray], classes: Mapping[str, np.ndarray], dim: int = 40
) -> Transform:
    """Return the directions that set classes apart most, scaled to unit variance within a class.

    Fukunaga, "Introduction to Statistical Pattern Recognition", 1990, chapter 10, as in Kaldi's
    ``est-lda``; without Kaldi's MLLT after it.

    Args:
        features: spliced frames ``(frames, columns)`` of each utterance.
        classes: class of each frame ``(frames,)``.
        dim: columns of the result.
    """
    used = [u for u in features if u in classes]
    frames = np.concatenate([features[u] for u in used]).astype(np.float64)
    labels = np.concatenate([classes[u] for u in used])
    mean = frames.mean(0)
    total = np.cov(frames.T, bias=True)
    between = np.zeros_like(total)
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        offset = frames[labels == label].mean(0) - mean
        between += count / len(frames) * np.outer(offset, offset)
    within = total - between + 1e-6 * np.eye(len(total))
    values, vectors = np.linalg.eigh(within)
    whiten = (vectors / np.sqrt(np.maximum(values, 1e-8))).T
    _, directions = np.linalg.eigh(whiten @ between @ whiten.T)
    matrix = directions[:, ::-1][:, :dim].T @ whiten
    splice = (frames.shape[1] // 13 - 1) // 2
    return Transform(matrix, splice)
