"""The Kaldi packages, imported in the one order and in the versions that work together.

``kaldi_hmm_gmm`` holds Kaldi's GMM-HMM code, ``kaldifst`` its FST library, ``kaldi_decoder`` its
decoders, ``kaldilm`` its ``arpa2fst``.  They share OpenFst objects and pin nothing themselves:
with ``kaldifst`` 1.8 ``kaldi_hmm_gmm`` waits for ever at import or refuses its FSTs, and so does
every one of them after ``kaldilm``, which brings an OpenFst of its own.  Hence nothing else in
this package imports them, and the versions are looked at before any is imported.

    from espnet_quant4.hybrid.kaldi import kaldifst

    graph = kaldifst().StdVectorFst.read("HCLG.fst")
"""

from __future__ import annotations

import functools
import sys
from importlib import import_module, metadata
from types import ModuleType

from espnet_quant4.extras import install_command

# Distribution and version; None: any.  setup.cfg's extra `hybrid` says the same.
VERSIONS = {
    "kaldi-hmm-gmm": "1.1.4",
    "kaldifst": "1.7.17",
    "kaldi-decoder": "0.2.11",
    "kaldilm": None,
}


def kaldi_hmm_gmm() -> ModuleType:
    """Return ``kaldi_hmm_gmm``: topology, transition model, GMM, tree, training graphs.

    Raises:
        ImportError: where the packages are missing or in versions that do not work together.
    """
    return _load()["kaldi_hmm_gmm"]


def kaldifst() -> ModuleType:
    """Return ``kaldifst``: OpenFst with Kaldi's algorithms; raises as `kaldi_hmm_gmm`."""
    return _load()["kaldifst"]


def kaldi_decoder() -> ModuleType:
    """Return ``kaldi_decoder``: search in a graph; raises as `kaldi_hmm_gmm`."""
    return _load()["kaldi_decoder"]


def kaldilm() -> ModuleType:
    """Return ``kaldilm``: ARPA files to FSTs; raises as `kaldi_hmm_gmm`."""
    _load()
    return import_module("kaldilm")


@functools.cache
def _load() -> dict[str, ModuleType]:
    check_versions()
    if "kaldilm" in sys.modules and "kaldifst" not in sys.modules:
        raise ImportError(
            "kaldilm was imported before kaldi_hmm_gmm, which then waits for ever. "
            "Get it by espnet_quant4.hybrid.kaldi.kaldilm()."
        )
    names = ("kaldi_hmm_gmm", "kaldifst", "kaldi_decoder")
    return {name: import_module(name) for name in names}


def check_versions() -> None:
    """Raise ImportError, with the way out, unless the packages are there in `VERSIONS`."""
    wrong = []
    for name, wanted in VERSIONS.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        if wanted is not None and found != wanted:
            wrong.append(f"{name} {found} is installed")
    if wrong:
        pins = " ".join(f"{name}=={v}" if v else name for name, v in VERSIONS.items())
        # Of this kind, which commands turn into one line.
        raise ModuleNotFoundError(
            f"The hybrid system needs {pins}, which work together; {'; '.join(wrong)}. "
            f"Next: {install_command('hybrid')}"
        )
