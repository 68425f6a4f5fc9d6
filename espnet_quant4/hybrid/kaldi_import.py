"""Alignments and graphs that a user's own Kaldi made, in the folders that this package reads."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from espnet_quant4.hybrid.gmm.alignment import Alignments, write_alignments
from espnet_quant4.hybrid.graph.graph_directory import Graph, write_graph_directory
from espnet_quant4.hybrid.kaldi_files.alignment import pdf_ids, read_alignments
from espnet_quant4.hybrid.kaldi_files.tokens import KaldiFileError
from espnet_quant4.hybrid.kaldi_files.transition_model import read_transition_model


def import_alignments(
    archives: Sequence[Path],
    model: Path,
    output: Path,
    utterances: Iterable[str] | None = None,
    snip_edges: bool = True,
) -> Alignments:
    """Write an alignment folder: ``pdf_ids``, ``pdf_counts``, ``final.mdl``, ``tree``...

    Args:
        archives: ``ali.*.gz`` of transition ids.
        model: folder of the ``final.mdl`` and ``tree`` that made them.
        output: the folder.
        utterances: those of a data folder: others are left out, and those without alignment listed in
            ``failed.txt``.  All that are aligned if None.
        snip_edges: what Kaldi's features were made with.  With it (Kaldi's default) the first frame
            is one later and the last one earlier than here: both are repeated.

    Raises:
        KaldiFileError: for damaged files, an archive of another model, or no utterance at all.
        FileNotFoundError: where a file is missing.
    """
    transitions = read_transition_model(model / "final.mdl")
    wanted = None if utterances is None else set(utterances)
    alignments = Alignments()
    edges = (int(snip_edges), int(snip_edges))
    for utterance, ids in read_alignments(archives):
        if (wanted is None or utterance in wanted) and len(ids):
            pdf_ids(ids, transitions, f"{utterance} of {archives[0].parent}")
            alignments.ids[utterance] = np.pad(ids, edges, mode="edge")
    for utterance in sorted((wanted or set()) - alignments.ids.keys()):
        alignments.failed[utterance] = f"no alignment in {archives[0].parent}"
    if not alignments.ids:
        raise KaldiFileError(
            f"{archives[0].parent}: no alignment of the {len(wanted or ())} utterances that are wanted"
        )
    output.mkdir(parents=True, exist_ok=True)
    for name in ("final.mdl", "tree"):
        shutil.copyfile(model / name, output / name)
    write_alignments(output, alignments, transitions.id2pdf, transitions.num_pdfs)
    return alignments


def import_graph(graph: Path, model: Path, output: Path, grammar: Path | None = None) -> Graph:
    """Write a graph folder from that of Kaldi's ``mkgraph.sh``.

    Args:
        graph: folder of ``HCLG.fst``, ``words.txt`` and ``phones.txt``.
        model: folder of the ``final.mdl`` and ``tree`` that it was made for.
        output: the folder.
        grammar: ``G.fst``, to take the language model's share out of costs in rescoring.

    Raises:
        GraphError: where graph and model do not belong together.
        FstFormatError, KaldiFileError: for files of another format.
        FileNotFoundError: where a file is missing.
    """
    parts = (graph / "words.txt", graph / "phones.txt", model / "final.mdl", model / "tree")
    write_graph_directory(output, graph / "HCLG.fst", *parts)
    if grammar is not None:
        shutil.copyfile(grammar, output / "G.fst")
    return Graph(output)
