"""A ``tree`` file: Kaldi's decision tree from phones in context to pdfs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from espnet_quant4.hybrid.kaldi import kaldi_hmm_gmm
from espnet_quant4.hybrid.kaldi_files.tokens import KaldiFileError

# What Kaldi begins binary files with.
_BINARY = b"\0B"


def tree_md5(path: str | Path) -> str:
    """Return the MD5 sum of a ``tree`` file, in hexadecimal: what tells one tree from another."""
    return hashlib.md5(Path(path).read_bytes(), usedforsecurity=False).hexdigest()


def read_tree(path: str | Path) -> Any:
    """Return the ``kaldi_hmm_gmm.ContextDependency`` of a binary ``tree`` file.

    Raises:
        KaldiFileError: for a file in text form, which the Kaldi packages cannot read, one that is
            damaged, or none at all.
        ImportError: without the Kaldi packages.
    """
    data = Path(path).read_bytes()
    if not data.startswith(_BINARY + b"ContextDependency "):
        raise KaldiFileError(
            f"{path}: no tree in Kaldi's binary form; copy-tree --binary=true IN OUT converts one"
        )
    try:
        return tree_from_bytes(data[len(_BINARY) :])
    except RuntimeError as error:
        raise KaldiFileError(
            f"{path}: the tree is cut off or damaged; make the model anew."
        ) from error


def tree_from_bytes(content: bytes) -> Any:
    """Return the ``kaldi_hmm_gmm.ContextDependency`` of a binary ``tree``, without the leading mark."""
    khg = kaldi_hmm_gmm()
    tree = khg.ContextDependency.__new__(khg.ContextDependency)
    # The module takes signed bytes.
    tree.__setstate__((np.frombuffer(content, dtype=np.int8).tolist(),))
    return tree


def write_tree(tree: Any, path: Path) -> None:
    """Write a ``kaldi_hmm_gmm.ContextDependency`` as a binary ``tree`` file."""
    path.write_bytes(_BINARY + tree_bytes(tree))


def tree_bytes(tree: Any) -> bytes:
    """Return what `tree_from_bytes` takes."""
    (values,) = tree.__getstate__()
    return np.array(values, dtype=np.int8).tobytes()
