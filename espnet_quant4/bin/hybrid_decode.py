"""``espnet-quant4 hybrid-decode``: search a decoding graph with an acoustic model's scores."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_quant4.bin.command import run_command
from espnet_quant4.bin.hybrid_rescore import add_rescoring_arguments, rescore
from espnet_quant4.hybrid.decode.job import Summary, decode_scores
from espnet_quant4.hybrid.decode.search import SearchOptions
from espnet_quant4.hybrid.graph.graph_directory import Graph

_HELP = {
    "acoustic_scale": "of the scores; the inverse of Kaldi's LMWT",
    "beam": "paths that cost more than the best one by this are given up",
    "max_active": "paths kept in a frame; with --nbest 1 only",
    "lattice_beam": "what is kept for n-best lists, by cost",
    "nbest": "word sequences an utterance; 1 searches faster and makes no lattice",
}


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(prog="espnet-quant4 hybrid-decode", description=__doc__)
    parser.add_argument("--graph", type=Path, required=True, help="graph folder")
    parser.add_argument("--scores", type=Path, required=True, help="scores.scp")
    parser.add_argument("--output", type=Path, required=True, help="folder for text and nbest")
    parser.add_argument("--tree", type=Path, help="of the acoustic model; checked if given")
    parser.add_argument("--frame_shift", type=float, default=0.01, help="seconds")
    for field in dataclasses.fields(SearchOptions):
        kind = type(field.default)
        parser.add_argument(
            f"--{field.name}", type=kind, default=field.default, help=_HELP[field.name]
        )
    add_rescoring_arguments(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Decode; returns the exit status."""
    args = get_parser().parse_args(arguments)
    _run(args)
    return 0


def _run(args: argparse.Namespace) -> None:
    graph = Graph(args.graph)
    if args.tree:
        graph.check_tree(args.tree)
    names = [field.name for field in dataclasses.fields(SearchOptions)]
    options = SearchOptions(**{name: getattr(args, name) for name in names})
    _show(args.output, decode_scores(graph, args.scores, args.output, options, args.frame_shift))
    if args.lm_rescore and not args.old_lm:
        args.old_lm = args.graph / "G.fst"
    wanted = (args.lm_rescore, args.tuned, args.lm_scale, args.word_insertion_penalty)
    if any(value is not None for value in wanted):
        rescore(args, [args.output / "nbest"])


def _show(output: Path, summary: Summary) -> None:
    print(
        f"{output}/text: {summary.utterances} utterances, {summary.audio_seconds:.1f} s of speech, "
        f"{summary.seconds:.1f} s of search; real-time factor {summary.real_time_factor:.3f}"
    )
    if summary.partial:
        print(
            f"{output}/partial.txt: {len(summary.partial)} utterances end where the graph lets none "
            "end; a wider beam may help"
        )
    if summary.failed:
        print(f"{output}/failed.txt: {len(summary.failed)} utterances have no hypothesis")


if __name__ == "__main__":
    sys.exit(run_command("hybrid-decode", main))
