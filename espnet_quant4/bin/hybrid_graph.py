"""``espnet-quant4 hybrid-graph``: build the decoding graph HCLG."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from espnet_quant4.bin.command import run_command
from espnet_quant4.hybrid.graph.grammar import arpa_to_fst, phrase_grammar
from espnet_quant4.hybrid.graph.graph_directory import write_graph_directory
from espnet_quant4.hybrid.graph.hclg import build_hclg
from espnet_quant4.hybrid.kaldi_files.transition_model import read_transition_model
from espnet_quant4.hybrid.kaldi_files.tree import read_tree
from espnet_quant4.hybrid.lang.lang_directory import Lang, read_transcripts
from espnet_quant4.hybrid.openfst import read_kaldifst
from espnet_quant4.hybrid.stage_record import Stage, file_input, folder_inputs
from espnet_quant4.text_files import write_lines

# What tells a graph folder.
MADE = ("HCLG.fst", "G.fst", "id2pdf", "words.txt")


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(prog="espnet-quant4 hybrid-graph", description=__doc__)
    parser.add_argument("--lang", type=Path, required=True, help="lang folder")
    grammar = parser.add_mutually_exclusive_group(required=True)
    grammar.add_argument("--lm", type=Path, help="ARPA file")
    grammar.add_argument(
        "--phrases", type=Path, help="transcripts: recognize these sentences and no other"
    )
    parser.add_argument("--gmm", type=Path, required=True, help="folder of final.mdl and tree")
    parser.add_argument("--output", type=Path, required=True, help="graph folder")
    parser.add_argument("--transition_scale", type=float, default=1.0)
    parser.add_argument("--self_loop_scale", type=float, default=0.1, help="1.0 for chain models")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Build a graph; returns the exit status."""
    args = get_parser().parse_args(arguments)
    _run(args)
    return 0


def _run(args: argparse.Namespace) -> None:
    stage = _stage(args)
    if not stage.begin(print):
        return
    lang = Lang(args.lang)
    grammar = _grammar(args, lang)
    args.output.mkdir(parents=True, exist_ok=True)
    # Rescoring takes the grammar's share in a cost from it.
    grammar.write(str(args.output / "G.fst"))
    model, tree = args.gmm / "final.mdl", args.gmm / "tree"
    hclg = build_hclg(
        read_kaldifst(args.lang / "L_disambig.fst"),
        grammar,
        lang.ids("disambig"),
        read_tree(tree),
        read_transition_model(model).to_kaldi(),
        args.transition_scale,
        args.self_loop_scale,
        say=print,
    )
    words, phones = args.lang / "words.txt", args.lang / "phones.txt"
    write_graph_directory(args.output, hclg, words, phones, model, tree)
    stage.finish()
    print(f"written: {args.output}")


def _stage(args: argparse.Namespace) -> Stage:
    lang = ("L_disambig.fst", "words.txt", "phones.txt", "phones/disambig.txt")
    inputs = folder_inputs("lang", args.lang, lang)
    inputs |= folder_inputs("model", args.gmm, ("final.mdl", "tree"))
    inputs["grammar"] = file_input(args.lm or args.phrases)
    options = {
        "phrases": args.phrases is not None,
        "transition_scale": args.transition_scale,
        "self_loop_scale": args.self_loop_scale,
    }
    return Stage("hybrid-graph", args.output, MADE, inputs, options)


def _grammar(args: argparse.Namespace, lang: Lang) -> Any:
    """Return G; lists what is left out of it in ``left_out.txt``."""
    if args.lm:
        grammar, left_out = arpa_to_fst(args.lm, args.lang / "words.txt")
        kind = "words of the language model"
    else:
        sentences = read_transcripts(args.phrases)
        grammar, left_out = phrase_grammar(sentences.values(), lang.words)
        kind = "sentences with words"
    args.output.mkdir(parents=True, exist_ok=True)
    listed = args.output / "left_out.txt"
    write_lines(listed, left_out)
    if left_out:
        print(f"{listed}: {len(left_out)} {kind} without pronunciation are left out")
    return grammar


if __name__ == "__main__":
    sys.exit(run_command("hybrid-graph", main))
