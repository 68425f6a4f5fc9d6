"""The folder of a decoding graph: HCLG, what its labels mean, and whose tree it was made for."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from espnet_quant4.hybrid.graph.hclg import GraphError
from espnet_quant4.hybrid.kaldi import kaldifst
from espnet_quant4.hybrid.kaldi_files.transition_model import read_transition_model
from espnet_quant4.hybrid.kaldi_files.tree import tree_md5
from espnet_quant4.hybrid.openfst import FstArrays, read_fst, to_kaldifst
from espnet_quant4.text_files import read_symbols, read_text


@dataclass(frozen=True)
class Graph:
    """A graph folder: ``HCLG.fst``, ``words.txt``, ``phones.txt``, ``id2pdf``, ``tree.md5``...

    Attributes:
        folder: where it is.
    """

    folder: Path

    @cached_property
    def num_pdfs(self) -> int:
        """How many pdfs the tree has that it was made for."""
        return int(self._numbers("num_pdfs")[0])

    @cached_property
    def tree_md5(self) -> str:
        """MD5 sum of that tree's file."""
        return (self._text("tree.md5").split() or [""])[0]

    @cached_property
    def id2pdf(self) -> NDArray[np.int32]:
        """(transition ids + 1,) int32: pdf of each transition id; -1 at index 0."""
        return self._numbers("id2pdf")

    @cached_property
    def words(self) -> dict[int, str]:
        """The word of each output label."""
        return {number: word for word, number in read_symbols(self._path("words.txt")).items()}

    def check_tree(self, tree: Path) -> None:
        """Check that the graph was made for this tree.

        Raises:
            GraphError: if it was made for another one.
        """
        found = tree_md5(tree)
        if found != self.tree_md5:
            raise GraphError(
                f"{self.folder}: made for another tree than {tree} (MD5 {self.tree_md5}, not {found}), "
                "so its pdfs are other states. Build the graph for this tree: hybrid_graph."
            )

    def check_num_pdfs(self, num_pdfs: int, where: str) -> None:
        """Check that scores have a column for each pdf of the graph, and no more.

        Raises:
            GraphError: if they do not.
        """
        if num_pdfs != self.num_pdfs:
            raise GraphError(
                f"{where}: scores of {num_pdfs} pdfs, but {self.folder} was made for a tree with "
                f"{self.num_pdfs}. Build a graph for the tree that the network was trained with: "
                "hybrid_graph."
            )

    def load(self) -> Any:
        """Return the graph for search, a ``kaldifst.StdConstFst``.

        Its input labels are pdf + 1 in place of transition ids, as ``DecodableCtc`` takes label
        ``n`` for column ``n - 1`` of the scores.

        Raises:
            GraphError: where the graph's transition ids are not those of ``id2pdf``.
        """
        arrays = read_fst(self._path("HCLG.fst"))
        return kaldifst().StdConstFst(to_kaldifst(relabel(arrays, self.id2pdf, str(self.folder))))

    def _numbers(self, name: str) -> NDArray[np.int32]:
        try:
            found = np.array(self._text(name).split(), dtype=np.int32)
        except (ValueError, OverflowError) as error:
            raise GraphError(f"{self._path(name)}: {error}; make the graph folder anew") from error
        if not len(found):
            raise GraphError(f"{self._path(name)}: is empty; make the graph folder anew")
        return found

    def _text(self, name: str) -> str:
        return read_text(self._path(name))

    def _path(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise GraphError(f"{path}: no such file; hybrid_graph makes a graph folder")
        return path


def relabel(graph: FstArrays, id2pdf: NDArray[np.int32], where: str) -> FstArrays:
    """Replace transition ids on the input side by pdf + 1; epsilon stays 0.

    Raises:
        GraphError: for a transition id that ``id2pdf`` lacks.
    """
    largest = int(np.max(graph.ilabel)) if len(graph.ilabel) else 0
    if largest >= len(id2pdf):
        raise GraphError(
            f"{where}: HCLG.fst has transition id {largest}, its id2pdf only {len(id2pdf) - 1}: they "
            "are of different models. Build the graph anew."
        )
    labels = np.where(graph.ilabel == 0, 0, id2pdf[graph.ilabel] + 1)
    return graph.with_labels(ilabel=labels.astype(np.int32))


def write_graph_directory(
    output: Path, hclg: Any, words: Path, phones: Path, model: Path, tree: Path
) -> None:
    """Write a graph folder; ``HCLG.fst`` comes last, so that it is there only when all is.

    Args:
        output: the folder.
        hclg: a ``kaldifst`` FST, or the path of a file such as Kaldi's ``HCLG.fst``.
        words: symbol table of its output labels.
        phones: symbol table of the tree's phones.
        model: ``final.mdl`` whose transition ids are its input labels.
        tree: the tree it was made for.
    """
    output.mkdir(parents=True, exist_ok=True)
    transitions = read_transition_model(model)
    if isinstance(hclg, Path):
        relabel(read_fst(hclg), transitions.id2pdf, str(hclg))
    # While the others change, no old graph may stand beside them.
    (output / "HCLG.fst").unlink(missing_ok=True)
    for source, name in ((words, "words.txt"), (phones, "phones.txt")):
        shutil.copyfile(source, output / name)
    _write_line(output / "id2pdf", transitions.id2pdf.tolist())
    _write_line(output / "num_pdfs", [transitions.num_pdfs])
    _write_line(output / "tree.md5", [tree_md5(tree)])
    partial = output / "HCLG.fst.part"
    if isinstance(hclg, Path):
        shutil.copyfile(hclg, partial)
    elif not hclg.write(str(partial)):
        raise OSError(f"{partial}: not written; is the disk full?")
    partial.replace(output / "HCLG.fst")


def _write_line(path: Path, values: Sequence[object]) -> None:
    path.write_text(" ".join(map(str, values)) + "\n", encoding="utf-8")
