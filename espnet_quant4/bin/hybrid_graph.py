"""``espnet-quant4 hybrid-graph``: build the decoding graph HCLG."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from espnet_quant4.bin.command import run_command
from espnet_quant4.hybrid.graph.arpa import LanguageModelError
from espnet_quant4.hybrid.graph.grammar import arpa_to_fst, phrase_grammar
from espnet_quant4.hybrid.graph.graph_directory import write_graph_directory
from espnet_quant4.hybrid.graph.hclg import GraphError, build_hclg
from espnet_quant4.hybrid.kaldi import kaldifst
from espnet_quant4.hybrid.kaldi_files.tokens import KaldiFileError
from espnet_quant4.hybrid.kaldi_files.transition_model import read_transition_model
from espnet_quant4.hybrid.kaldi_files.tree import read_tree
from espnet_quant4.hybrid.lang.lang_directory import Lang, read_transcripts

# What the graph in a folder was made from and how; it is made again when that changes.
RECORD = "graph.json"


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
    try:
        _run(args)
    except (GraphError, KaldiFileError, LanguageModelError, ImportError, OSError) as error:
        print(f"espnet-quant4 hybrid-graph: {error}", file=sys.stderr)
        return 1
    return 0


def _run(args: argparse.Namespace) -> None:
    lang = Lang(args.lang)
    inputs = {
        "L_disambig": args.lang / "L_disambig.fst",
        "words": args.lang / "words.txt",
        "phones": args.lang / "phones.txt",
        "grammar": args.lm or args.phrases,
        "model": args.gmm / "final.mdl",
        "tree": args.gmm / "tree",
    }
    record = {
        "phrases": args.phrases is not None,
        "transition_scale": args.transition_scale,
        "self_loop_scale": args.self_loop_scale,
        "inputs": {
            name: [str(path.resolve()), path.stat().st_mtime_ns] for name, path in inputs.items()
        },
    }
    if _is_current(args.output, record):
        print(f"{args.output}/HCLG.fst is there, made from the same files")
        return
    grammar = _grammar(args, lang)
    args.output.mkdir(parents=True, exist_ok=True)
    # Rescoring takes the grammar's share in a cost from it.
    grammar.write(str(args.output / "G.fst"))
    hclg = build_hclg(
        kaldifst().StdVectorFst.read(str(inputs["L_disambig"])),
        grammar,
        lang.ids("disambig"),
        read_tree(inputs["tree"]),
        read_transition_model(inputs["model"]).to_kaldi(),
        args.transition_scale,
        args.self_loop_scale,
        say=print,
    )
    write_graph_directory(
        args.output, hclg, inputs["words"], inputs["phones"], inputs["model"], inputs["tree"]
    )
    (args.output / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"written: {args.output}")


def _is_current(output: Path, record: dict[str, Any]) -> bool:
    path = output / RECORD
    return (
        (output / "HCLG.fst").is_file()
        and path.is_file()
        and json.loads(path.read_text(encoding="utf-8")) == record
    )


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
    listed.write_text("".join(f"{item}\n" for item in left_out), encoding="utf-8")
    if left_out:
        print(f"{listed}: {len(left_out)} {kind} without pronunciation are left out")
    return grammar


if __name__ == "__main__":
    sys.exit(run_command("hybrid-graph", main))
