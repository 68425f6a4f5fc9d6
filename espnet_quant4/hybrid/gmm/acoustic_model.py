"""GMM-HMM: tree, transition model and mixtures, in Kaldi's files ``tree`` and ``final.mdl``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from espnet_quant4.hybrid.kaldi import kaldi_hmm_gmm

_NUMBERS = re.compile(r"\[([^\]]*)\]")


@dataclass
class AcousticModel:
    """What a GMM-HMM consists of; the attributes are objects of ``kaldi_hmm_gmm``.

    Attributes:
        tree: ``ContextDependency``.
        transitions: ``TransitionModel``.
        mixtures: ``AmDiagGmm``, a mixture for each pdf.
    """

    tree: Any
    transitions: Any
    mixtures: Any

    @property
    def num_pdfs(self) -> int:
        """Number of states that have a distribution of their own."""
        return int(self.mixtures.num_pdfs)

    @property
    def id2pdf(self) -> np.ndarray:
        """``(transition ids + 1,)`` int32: the pdf of each transition id; these count from 1."""
        return np.array(self.transitions.transition_id_to_pdf_array(), dtype=np.int32)

    def write(self, folder: Path) -> None:
        """Write ``tree`` (binary), ``final.mdl`` (text) and ``num_pdfs``."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tree").write_bytes(b"\0B" + tree_bytes(self.tree))
        parts = [str(self.transitions).strip(), f"<DIMENSION> {self.mixtures.dim}"]
        parts.append(f"<NUMPDFS> {self.num_pdfs}")
        for pdf in range(self.num_pdfs):
            mixture = self.mixtures.get_pdf(pdf)
            parts += ["<DiagGMM>", "<GCONSTS> " + _vector(mixture.gconsts)]
            parts += ["<WEIGHTS> " + _vector(mixture.weights)]
            parts += ["<MEANS_INVVARS> " + _matrix(mixture.means_invvars)]
            parts += ["<INV_VARS> " + _matrix(mixture.inv_vars), "</DiagGMM>"]
        partial = folder / "final.mdl.part"
        partial.write_text("\n".join(parts) + "\n", encoding="ascii")
        partial.replace(folder / "final.mdl")
        (folder / "num_pdfs").write_text(f"{self.num_pdfs}\n", encoding="ascii")

    @classmethod
    def read(cls, folder: Path) -> AcousticModel:
        """Read what `write` wrote."""
        text = (folder / "final.mdl").read_text(encoding="ascii")
        head, _, body = text.partition("</TransitionModel>")
        topology = head[head.index("<Topology>") : head.index("</Topology>") + len("</Topology>")]
        tree = tree_from_bytes((folder / "tree").read_bytes()[2:])
        transitions = new_transitions(tree, topology + "\n")
        match = _NUMBERS.search(head[head.index("<LogProbs>") :])
        assert match is not None
        transitions = with_log_probs(transitions, [float(n) for n in match.group(1).split()])
        khg = kaldi_hmm_gmm()
        mixtures = khg.AmDiagGmm()
        for part in body.split("<DiagGMM>")[1:]:
            _, weights, means, variances = (
                np.array(numbers.split(), dtype=np.float32) for numbers in _NUMBERS.findall(part)
            )
            shape = (len(weights), -1)
            mixtures.add_pdf(new_mixture(weights, means.reshape(shape), variances.reshape(shape)))
        return cls(tree, transitions, mixtures)


def new_mixture(weights: np.ndarray, means_invvars: np.ndarray, inv_vars: np.ndarray) -> Any:
    """Return a ``DiagGmm``.

    Args:
        weights: ``(N,)``.
        means_invvars: ``(N, dim)``, means over variances.
        inv_vars: ``(N, dim)``.
    """
    mixture = kaldi_hmm_gmm().DiagGmm(*inv_vars.shape)
    mixture.set_weights(weights.astype(np.float32))
    mixture.set_invvars_and_means(
        inv_vars.astype(np.float32), (means_invvars / inv_vars).astype(np.float32)
    )
    mixture.compute_gconsts()
    return mixture


def new_transitions(tree: Any, topology: str) -> Any:
    """Return the ``TransitionModel`` of a tree and a topology in text form, not trained."""
    khg = kaldi_hmm_gmm()
    parsed = khg.HmmTopology()
    parsed.read(topology)
    return khg.TransitionModel(tree, parsed)


def with_log_probs(transitions: Any, log_probs: Sequence[float]) -> Any:
    """Return a ``TransitionModel`` with other log probabilities.

    Args:
        transitions: a ``TransitionModel``.
        log_probs: one a transition id; the first is not used.

    Raises:
        ValueError: for another number of them.
    """
    khg = kaldi_hmm_gmm()
    state = list(transitions.__getstate__())
    # Its state: tuples, topology, three maps between ids, pdfs, log probs, and those of leaving.
    if len(log_probs) != len(state[6]):
        raise ValueError(
            f"{len(log_probs)} transition probabilities for {len(state[6])} transition ids: tree and "
            "model are not of one training."
        )
    state[6] = list(log_probs)
    stay = np.full(len(state[7]), -np.inf)
    for transition_id in range(1, len(log_probs)):
        if transitions.is_self_loop(transition_id):
            stay[state[3][transition_id]] = log_probs[transition_id]
    leave = np.log(np.maximum(1 - np.exp(stay), 1e-20))
    state[7] = [0.0, *leave[1:].tolist()]
    return _with_state(khg.TransitionModel, tuple(state))


def tree_bytes(tree: Any) -> bytes:
    """Return a ``ContextDependency`` as Kaldi writes it in binary, without the leading mark."""
    (values,) = tree.__getstate__()
    return np.array(values, dtype=np.int8).tobytes()


def tree_from_bytes(content: bytes) -> Any:
    """Return the ``ContextDependency`` of `tree_bytes`."""
    state = (np.frombuffer(content, dtype=np.int8).tolist(),)
    return _with_state(kaldi_hmm_gmm().ContextDependency, state)


def _with_state(kind: Any, state: tuple[Any, ...]) -> Any:
    """Return an object of a class as unpickling would: its ``__setstate__`` constructs it."""
    made = kind.__new__(kind)
    made.__setstate__(state)
    return made


def _vector(values: np.ndarray) -> str:
    return "[ " + " ".join(f"{value:.8g}" for value in values) + " ]"


def _matrix(values: np.ndarray) -> str:
    rows = (" ".join(f"{value:.8g}" for value in row) for row in values)
    return "[\n" + "\n".join(rows) + " ]"
