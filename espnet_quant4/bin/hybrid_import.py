"""``espnet-quant4 hybrid-import``: take alignments or a graph from your own Kaldi."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_quant4.bin.command import run_command
from espnet_quant4.hybrid.graph.hclg import GraphError
from espnet_quant4.hybrid.kaldi_files.tokens import KaldiFileError
from espnet_quant4.hybrid.kaldi_import import import_alignments, import_graph
from espnet_quant4.hybrid.lang.lang_directory import read_transcripts
from espnet_quant4.hybrid.openfst import FstFormatError


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(prog="espnet-quant4 hybrid-import", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    alignments = kinds.add_parser("alignments", help="ali.*.gz, to train a network on")
    alignments.add_argument(
        "--ali", type=Path, required=True, help="folder of ali.*.gz, final.mdl and tree"
    )
    alignments.add_argument("--data", type=Path, help="data folder: take its utterances only")
    alignments.add_argument(
        "--snip_edges",
        choices=("true", "false"),
        default="true",
        help="of the features that were aligned; Kaldi's default is true",
    )
    graph = kinds.add_parser("graph", help="what mkgraph.sh made, to decode with")
    graph.add_argument(
        "--graph", type=Path, required=True, help="folder of HCLG.fst, words.txt and phones.txt"
    )
    graph.add_argument("--grammar", type=Path, help="G.fst of its lang folder, for rescoring")
    for kind in (alignments, graph):
        kind.add_argument("--output", type=Path, required=True, help="folder to write")
        kind.add_argument("--model", type=Path, help="folder of final.mdl and tree, if another")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Import; returns the exit status."""
    args = get_parser().parse_args(arguments)
    try:
        if args.kind == "alignments":
            _alignments(args)
        else:
            # In Kaldi the graph's folder lies in that of its model.
            model = args.model or args.graph.parent
            graph = import_graph(args.graph, model, args.output, args.grammar)
            print(f"written: {args.output}, {graph.num_pdfs} pdfs")
    except (FstFormatError, GraphError, KaldiFileError, ImportError, OSError) as error:
        print(f"espnet-quant4 hybrid-import: {error}", file=sys.stderr)
        return 1
    return 0


def _alignments(args: argparse.Namespace) -> None:
    archives = sorted(args.ali.glob("ali.*.gz"))
    if not archives:
        raise FileNotFoundError(f"{args.ali}: no ali.*.gz in it")
    utterances = read_transcripts(args.data / "text") if args.data else None
    found = import_alignments(
        archives, args.model or args.ali, args.output, utterances, args.snip_edges == "true"
    )
    print(f"written: {args.output}, {len(found.ids)} utterances, {found.frames} frames")
    if found.failed:
        print(f"{args.output}/failed.txt: {len(found.failed)} utterances have no alignment")


if __name__ == "__main__":
    sys.exit(run_command("hybrid-import", main))
