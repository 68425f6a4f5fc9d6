"""GMM-HMM: tree, transition model and mixtures, in Kaldi's files ``tree`` and ``final.mdl``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from espnet_quant4.hybrid.kaldi import kaldi_hmm_gmm
from espnet_quant4.hybrid.kaldi_files.tokens import KaldiFileError
from espnet_quant4.hybrid.kaldi_files.transition_model import read_transition_model
from espnet_quant4.hybrid.kaldi_files.tree import read_tree, write_tree
from espnet_quant4.text_files import read_text

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
        write_tree(self.tree, folder / "tree")
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
    def read(cls, folder: Path, with_mixtures: bool = True) -> AcousticModel:
        """Read what `write` wrote.

        Args:
            folder: with ``tree`` and ``final.mdl``.
            with_mixtures: False leaves out the mixtures, which take long to read where there are many:
                for those who have scores of a network.

        Raises:
            KaldiFileError: for damaged files, or a tree and a model that do not belong together.
        """
        path = folder / "final.mdl"
        read = read_transition_model(path)
        tree = read_tree(folder / "tree")
        of_tree = new_transitions(tree, read.topology_text()).num_transition_ids
        if of_tree != read.num_transition_ids:
            raise KaldiFileError(
                f"{path}: {read.num_transition_ids} transition ids, but {of_tree} by {folder}/tree: "
                "tree and model are not of one training."
            )
        mixtures = kaldi_hmm_gmm().AmDiagGmm()
        if not with_mixtures:
            return cls(tree, read.to_kaldi(), mixtures)
        for part in _parts_of_mixtures(path):
            try:
                _, weights, means, variances = (
                    np.array(numbers.split(), dtype=np.float32)
                    for numbers in _NUMBERS.findall(part)
                )
                shape = (len(weights), -1)
                mixture = new_mixture(weights, means.reshape(shape), variances.reshape(shape))
            except (ValueError, RuntimeError) as error:
                raise KaldiFileError(
                    f"{path}: mixture {mixtures.num_pdfs} is damaged ({error}); make the model anew."
                ) from error
            mixtures.add_pdf(mixture)
        if mixtures.num_pdfs != tree.num_pdfs:
            raise KaldiFileError(
                f"{path}: {mixtures.num_pdfs} mixtures, but {tree.num_pdfs} pdfs by "
                f"{folder}/tree; the file "
                "is cut off, or of another tree. Make the model anew."
            )
        return cls(tree, read.to_kaldi(), mixtures)


def _parts_of_mixtures(path: Path) -> list[str]:
    """Return the text of each mixture.

    Raises:
        KaldiFileError: for a file in Kaldi's binary form.
    """
    if path.read_bytes()[:2] == b"\0B":
        raise KaldiFileError(
            f"{path}: mixtures in Kaldi's binary form are not read; gmm-copy --binary=false IN "
            "OUT writes "
            "them as text."
        )
    _, _, body = read_text(path).partition("</TransitionModel>")
    return body.split("<DiagGMM>")[1:]


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
    return kaldi_hmm_gmm().TransitionModel(tree, read_topology(topology))


def read_topology(text: str) -> Any:
    """Return the ``HmmTopology`` of Kaldi's text form."""
    topology = kaldi_hmm_gmm().HmmTopology()
    topology.read(text)
    return topology


def _vector(values: np.ndarray) -> str:
    return "[ " + " ".join(f"{value:.8g}" for value in values) + " ]"


def _matrix(values: np.ndarray) -> str:
    rows = (" ".join(f"{value:.8g}" for value in row) for row in values)
    return "[\n" + "\n".join(rows) + " ]"
