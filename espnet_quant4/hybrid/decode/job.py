"""Decoding a file of scores: utterance by utterance, to be taken up where it stopped."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from espnet_quant4.hybrid.decode.nbest_list import Entry, write_nbest
from espnet_quant4.hybrid.decode.search import Searcher, SearchError, SearchOptions
from espnet_quant4.hybrid.graph.graph_directory import Graph
from espnet_quant4.hybrid.kaldi_files.archives import Matrices
from espnet_quant4.hybrid.kaldi_files.tokens import KaldiFileError
from espnet_quant4.hybrid.stage_record import Stage, folder_inputs, listed_inputs
from espnet_quant4.text_files import write_lines

# One line an utterance, written as soon as it is decoded.
JOURNAL = "search.jsonl"


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a decoding did.

    Attributes:
        utterances: number of utterances.
        seconds: of the search alone, without loading and reading.
        audio_seconds: of speech.
        partial: utterances whose best path does not end where the graph lets one end.
        failed: why, for utterances without any hypothesis.
    """

    utterances: int
    seconds: float
    audio_seconds: float
    partial: list[str]
    failed: dict[str, str]

    @property
    def real_time_factor(self) -> float:
        """Seconds of search a second of speech; NaN without speech."""
        return self.seconds / self.audio_seconds if self.audio_seconds else float("nan")


def decode_scores(
    graph: Graph,
    scores: Path,
    output: Path,
    options: SearchOptions,
    frame_shift: float = 0.01,
) -> Summary:
    """Decode every utterance of a ``scores.scp`` in this thread.

    Writes ``text`` (an utterance without hypothesis is empty there, so that scoring counts it),
    ``nbest/``, ``seconds`` (those of the search and of the speech), ``partial.txt`` and
    ``failed.txt`` (utterance and reason) into ``output``.  What an interrupted run decoded is kept,
    unless scores, graph or options are others now.

    Args:
        graph: the graph.
        scores: Kaldi script file of float32 matrices (frames, pdfs).
        output: folder.
        options: of the search.
        frame_shift: in seconds.

    Raises:
        GraphError: where the scores are for another number of pdfs.
        SearchError: where there is no utterance.
    """
    matrices = Matrices(scores)
    if not matrices:
        raise SearchError(f"{scores}: no utterance in it")
    stage = stage_of(graph, scores, output, options)
    if not stage.is_same_work():
        # What was decoded with other inputs or options is of no use.
        stage.begin(print)
        (output / JOURNAL).unlink(missing_ok=True)
    done = _read_journal(output / JOURNAL)
    waiting = [utterance for utterance in matrices if utterance not in done]
    if waiting:
        searcher = Searcher(graph.load(), options)
        with open(output / JOURNAL, "a", encoding="utf-8") as journal:
            bar = tqdm(waiting, desc="search", unit="utterance", file=sys.stderr, mininterval=1)
            for utterance in bar:
                done[utterance] = _decode(searcher, graph, matrices, utterance)
                row = {"utterance": utterance, **done[utterance]}
                journal.write(json.dumps(row, ensure_ascii=False) + "\n")
                journal.flush()
    ordered = {utterance: done[utterance] for utterance in matrices}
    summary = _write(output, ordered, options, frame_shift)
    stage.finish()
    return summary


def stage_of(graph: Graph, scores: Path, output: Path, options: SearchOptions) -> Stage:
    """Return what a decoding depends on.

    Raises:
        StageError: where the graph's folder, or that of the scores, is half written.
    """
    inputs = folder_inputs("graph", graph.folder, ("HCLG.fst", "words.txt", "id2pdf"))
    inputs |= listed_inputs("scores.scp", scores)
    return Stage(
        "hybrid-decode",
        output,
        ("text", JOURNAL),
        inputs,
        dataclasses.asdict(options),
        keeps=(JOURNAL,),
    )


def _read_journal(path: Path) -> dict[str, dict[str, Any]]:
    """Return what is decoded; cuts off a line that an interruption left half written."""
    if not path.is_file():
        return {}
    content = path.read_bytes()
    complete = content[: content.rfind(b"\n") + 1]
    if len(complete) < len(content):
        path.write_bytes(complete)
    rows = [json.loads(line) for line in complete.splitlines()]
    return {row.pop("utterance"): row for row in rows}


def _decode(searcher: Searcher, graph: Graph, matrices: Matrices, utterance: str) -> dict[str, Any]:
    start = time.perf_counter()
    frames, problem = 0, ""
    try:
        scores = matrices[utterance].astype(np.float32, copy=False)
        frames = len(scores)
        graph.check_num_pdfs(scores.shape[1], str(matrices.scp))
        start = time.perf_counter()
        found = searcher(scores)
        hypotheses, final = found.hypotheses, found.reached_final
        if not hypotheses:
            problem = "no path through the graph; widen --beam"
    except (KaldiFileError, SearchError) as error:
        hypotheses, final, problem = [], False, str(error)
    scale = searcher.options.acoustic_scale
    return {
        "frames": frames,
        "seconds": time.perf_counter() - start,
        "final": final,
        "problem": problem,
        "hypotheses": [
            [[graph.words[word] for word in h.words], h.acoustic_cost / scale, h.graph_cost]
            for h in hypotheses
        ],
    }


def _write(
    output: Path, rows: Mapping[str, dict[str, Any]], options: SearchOptions, frame_shift: float
) -> Summary:
    entries = {
        utterance: [Entry(tuple(words), *costs) for words, *costs in row["hypotheses"]]
        for utterance, row in rows.items()
    }
    failed = {utterance: row["problem"] for utterance, row in rows.items() if row["problem"]}
    partial = [u for u, row in rows.items() if not row["final"] and u not in failed]
    summary = Summary(
        utterances=len(rows),
        seconds=sum(row["seconds"] for row in rows.values()),
        audio_seconds=sum(row["frames"] for row in rows.values()) * frame_shift,
        partial=partial,
        failed=failed,
    )
    write_nbest(output / "nbest", entries, options.acoustic_scale)
    write_lines(output / "partial.txt", partial)
    write_lines(output / "failed.txt", (f"{u} {why}" for u, why in failed.items()))
    write_lines(output / "seconds", [f"{summary.seconds:.6f} {summary.audio_seconds:.2f}"])
    write_text(
        output / "text", {u: ranked[0].words if ranked else () for u, ranked in entries.items()}
    )
    return summary


def write_text(path: Path, texts: Mapping[str, tuple[str, ...]]) -> None:
    """Write a Kaldi-style ``text``."""
    write_lines(path, (" ".join([utterance, *words]) for utterance, words in texts.items()))
