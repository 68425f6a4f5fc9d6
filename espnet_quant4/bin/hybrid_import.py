"""``espnet-quant4 hybrid-import``: take alignments or a graph from your own Kaldi."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_quant4.bin.command import run_command
from espnet_quant4.hybrid.gmm.records import ALIGNED
from espnet_quant4.hybrid.kaldi_import import import_alignments, import_graph
from espnet_quant4.hybrid.stage_record import Stage, file_input, folder_inputs
from espnet_quant4.text_files import read_pairs


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
    if args.kind == "alignments":
        _alignments(args)
    else:
        _graph(args)
    return 0


def _graph(args: argparse.Namespace) -> None:
    # In Kaldi the graph's folder lies in that of its model.
    model = args.model or args.graph.parent
    inputs = folder_inputs("graph", args.graph, ("HCLG.fst", "words.txt", "phones.txt"))
    inputs |= folder_inputs("model", model, ("final.mdl", "tree"))
    if args.grammar:
        inputs["grammar"] = file_input(args.grammar)
    stage = Stage("hybrid-import graph", args.output, ("HCLG.fst", "id2pdf", "words.txt"), inputs)
    if stage.begin(print):
        graph = import_graph(args.graph, model, args.output, args.grammar)
        stage.finish()
        print(f"written: {args.output}, {graph.num_pdfs} pdfs")


def _alignments(args: argparse.Namespace) -> None:
    archives = sorted(args.ali.glob("ali.*.gz"))
    if not archives:
        raise FileNotFoundError(f"{args.ali}: no ali.*.gz in it")
    model = args.model or args.ali
    inputs = folder_inputs("ali", args.ali, [archive.name for archive in archives])
    inputs |= folder_inputs("model", model, ("final.mdl", "tree"))
    utterances = None
    if args.data:
        utterances = [name for _, name, _ in read_pairs(args.data / "text")]
        inputs["text"] = file_input(args.data / "text")
    options = {"snip_edges": args.snip_edges}
    stage = Stage("hybrid-import alignments", args.output, ALIGNED, inputs, options, ("pdf_ids",))
    if not stage.begin(print):
        return
    found = import_alignments(archives, model, args.output, utterances, args.snip_edges == "true")
    stage.finish()
    print(f"written: {args.output}, {len(found.ids)} utterances, {found.frames} frames")
    if found.failed:
        print(f"{args.output}/failed.txt: {len(found.failed)} utterances have no alignment")


if __name__ == "__main__":
    sys.exit(run_command("hybrid-import", main))
