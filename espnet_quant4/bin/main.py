"""``espnet-quant4``: the plugin's own commands. What ESPnet has a command for is ESPnet's."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from espnet_quant4.bin.command import run_command

# name: (module under espnet_quant4.bin, what it does)
COMMANDS = {
    "check": ("check", "say what a recipe needs that is not there"),
    "calibrate": (
        "calibrate",
        "set activation clips from data, before quantization-aware training",
    ),
    "convert": ("convert", "write one INT4 file from a trained model"),
    "info": ("info", "show what is in an INT4 file"),
    "transcribe": ("transcribe", "recognize recordings with an INT4 file"),
    "score": ("score", "count word and character errors, as sclite does"),
    "hub5": ("score_hub5", "score Hub5-2000 (eval2000) by parts with NIST's hubscr.pl"),
    "compare": ("compare", "say whether two systems differ by more than chance"),
    "results": ("results", "make the table of results of a recipe's experiments"),
    "study": ("study", "make the table of experiments with several seeds"),
    "variants": ("variants", "write the schemes of an ablation"),
    "ablation": ("ablation", "make the table and figures of an ablation"),
    "search": ("search", "choose the bits of each weight under a budget of size"),
    "report": ("report", "write one HTML page about an experiment and its quantizers"),
    "hybrid-lang": ("hybrid_lang", "write a hybrid system's lexicon, topology and L"),
    "hybrid-features": ("hybrid_features", "write filterbanks, normalized by speaker"),
    "hybrid-gmm": ("hybrid_gmm", "train a GMM-HMM, align and score with it"),
    "hybrid-lm": ("hybrid_lm", "estimate an n-gram language model from transcripts"),
    "hybrid-graph": ("hybrid_graph", "build a hybrid system's decoding graph HCLG"),
    "hybrid-import": ("hybrid_import", "take alignments or a graph from your own Kaldi"),
    "hybrid-train": ("hybrid_train", "train a hybrid acoustic model"),
    "hybrid-prior": ("hybrid_prior", "write the log prior that scores are made with"),
    "hybrid-inference": ("hybrid_inference", "score utterances with a hybrid acoustic model"),
    "hybrid-pack": ("hybrid_pack", "pack a hybrid acoustic model into one archive"),
    "hybrid-decode": ("hybrid_decode", "search a graph with an acoustic model's scores"),
    "hybrid-rescore": ("hybrid_rescore", "choose from n-best lists, tuned on a dev part"),
    "hybrid-ctm": ("hybrid_ctm", "write times of recognized words, as NIST's CTM"),
    "prepare-switchboard": ("prepare_switchboard", "write Switchboard's and Hub5's data folders"),
    "hybrid-results": ("hybrid_results", "make the table of a hybrid recipe's experiments"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="espnet-quant4", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, help_text) in COMMANDS.items():
        # Each command parses its own arguments, so that --help need not import ESPnet.
        commands.add_parser(name, help=help_text, add_help=False)
    args, rest = parser.parse_known_args(arguments[:1])

    def run(rest: Sequence[str] | None) -> int | None:
        # Within the wrapper: what a command imports may be missing.
        module = import_module(f"espnet_quant4.bin.{COMMANDS[args.command][0]}")
        status: int | None = module.main(rest)
        return status

    return run_command(args.command, run, [*rest, *arguments[1:]])


if __name__ == "__main__":
    sys.exit(main())
