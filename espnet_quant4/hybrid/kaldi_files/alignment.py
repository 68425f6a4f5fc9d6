"""Alignments: ``ali.*.gz``, archives of transition ids, and the pdf ids that they stand for."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import kaldiio
import numpy as np
from numpy.typing import NDArray

from espnet_quant4.hybrid.kaldi_files.archives import DAMAGED, describe
from espnet_quant4.hybrid.kaldi_files.tokens import KaldiFileError
from espnet_quant4.hybrid.kaldi_files.transition_model import TransitionModel

_GZIP = b"\x1f\x8b"


def read_alignments(paths: Iterable[str | Path]) -> Iterator[tuple[str, NDArray[np.int32]]]:
    """Yield ``(utterance, transition ids)`` of archives, binary or text, compressed or not.

    Transition ids are (frames,) int32, each at least 1.

    Raises:
        KaldiFileError: for a file that is no archive of integers.
    """
    for path in paths:
        data = Path(path).read_bytes()
        try:
            if data.startswith(_GZIP):
                data = gzip.decompress(data)
            for utterance, ids in _vectors(data):
                if not np.issubdtype(ids.dtype, np.integer) or ids.ndim != 1:
                    raise KaldiFileError(
                        f"{path}: {utterance} holds {ids.dtype} of shape {ids.shape}; an alignment is "
                        "a vector of transition ids"
                    )
                yield utterance, ids.astype(np.int32)
        except (*DAMAGED, zlib.error) as error:
            if isinstance(error, KaldiFileError):
                raise
            raise KaldiFileError(
                f"{path}: no archive of alignments, or damaged: {describe(error)}. Make the alignment "
                "anew, or copy the file again."
            ) from error


def _vectors(data: bytes) -> Iterator[tuple[str, NDArray[Any]]]:
    if data.partition(b" ")[2].startswith(b"\0B"):
        yield from kaldiio.load_ark(BytesIO(data))
        return
    # kaldiio takes a wrong turn where a text archive's last vector is short.
    if data and not data.endswith(b"\n"):
        raise ValueError("the last line is cut off")
    for number, line in enumerate(data.decode().split("\n"), 1):
        utterance, *ids = line.split() or [""]
        if not utterance:
            continue
        try:
            yield utterance, np.array([int(value) for value in ids], dtype=np.int32)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"line {number}, {utterance}: {error}") from error


def pdf_ids(
    alignment: NDArray[np.int32], model: TransitionModel, where: str = "alignment"
) -> NDArray[np.int32]:
    """Return the pdf ids, (frames,) int32, of transition ids.

    Raises:
        KaldiFileError: for an id that the model lacks: the alignment is another model's.
    """
    if len(alignment):
        least, most = np.min(alignment), np.max(alignment)
        if not 1 <= least <= most <= model.num_transition_ids:
            raise KaldiFileError(
                f"{where}: transition ids {least} to {most}; the model has 1 to "
                f"{model.num_transition_ids}. Take the final.mdl that made this alignment."
            )
    return model.id2pdf[alignment]
