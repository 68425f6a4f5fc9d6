"""Archives of matrices, ``feats.scp`` and ``scores.scp``, with the place of what cannot be read."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import kaldiio
import numpy as np

from espnet_quant4.hybrid.kaldi_files.tokens import KaldiFileError
from espnet_quant4.text_files import read_pairs

# Which of these comes of a damaged archive is kaldiio's affair.
DAMAGED = (
    *(AssertionError, EOFError, IndexError, OSError, OverflowError),
    *(RuntimeError, ValueError, struct.error),
)


class Matrices(Mapping[str, np.ndarray]):
    """The matrices that a script file names, each read when it is asked for.

    Args:
        scp: Kaldi's script file: utterance and ``ARCHIVE:OFFSET`` a line.

    Raises:
        TextFileError: for an utterance that stands twice.
        OSError: where the script file cannot be read.
    """

    def __init__(self, scp: str | Path) -> None:
        self.scp = Path(scp)
        self._places = {key: (line, value) for line, key, value in read_pairs(self.scp)}

    def __getitem__(self, utterance: str) -> np.ndarray:
        """Return ``(rows, columns)``.

        Raises:
            KaldiFileError: where it cannot be read or is no matrix.
        """
        line, place = self._places[utterance]
        where = f"{self.scp}:{line}: {utterance}: {place}"
        try:
            found = np.asarray(kaldiio.load_mat(place))
        except DAMAGED as error:
            raise KaldiFileError(
                f"{where}: cannot be read ({describe(error)}). The archive is missing or damaged; make "
                "it anew."
            ) from error
        if found.ndim != 2:
            raise KaldiFileError(
                f"{where}: shape {found.shape}; a matrix of (frames, columns) is wanted"
            )
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def describe(error: BaseException) -> str:
    """Return what an error says, or its kind where it says nothing."""
    return str(error) or type(error).__name__
