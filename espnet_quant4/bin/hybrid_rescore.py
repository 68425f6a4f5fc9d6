"""``espnet-quant4 hybrid-rescore``: choose from n-best lists, by scales and another language model.

With ``--tune_on`` the options take lists of values, all combinations are tried on that dev part, and
``tuned.json`` holds the best: give it to the decoding of the test part as ``--tuned``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_quant4.bin.command import run_command
from espnet_quant4.hybrid.decode.job import write_text
from espnet_quant4.hybrid.decode.language_models import KINDS, load_language_model
from espnet_quant4.hybrid.decode.nbest_list import read_nbest
from espnet_quant4.hybrid.decode.rescoring import (
    Rescorer,
    RescoringError,
    RescoringOptions,
    format_trials,
    grid,
    read_options,
    tune,
    write_options,
)
from espnet_quant4.hybrid.lang.lang_directory import read_transcripts


def add_rescoring_arguments(parser: argparse.ArgumentParser, lists: bool = False) -> None:
    """Add the options that `rescore` reads; with ``lists`` they take several values."""
    group = parser.add_argument_group("rescoring of the n-best list")
    several = "+" if lists else None
    group.add_argument("--lm_rescore", type=Path, help=f"new language model: {KINDS}")
    group.add_argument("--lm_train_config", type=Path, help="config.yaml of a .pth")
    group.add_argument("--old_lm", type=Path, help="that of the graph: its ARPA file or G.fst")
    for name, help_text in (
        ("lm_scale", "Kaldi's LMWT; default: the inverse of the search's acoustic scale"),
        ("word_insertion_penalty", "for each word; default: 0"),
        ("lm_weight", "of the new language model, 0 to 1; default: 1"),
    ):
        group.add_argument(f"--{name}", type=float, nargs=several, help=help_text)
    group.add_argument("--tuned", type=Path, help="tuned.json of a dev part, in place of these")


def rescore(args: argparse.Namespace, folders: Sequence[Path]) -> None:
    """Write ``text`` into ``args.output``; the options are those of `add_rescoring_arguments`."""
    nbest, acoustic_scale = read_nbest(folders)
    new = old = None
    if args.lm_rescore:
        new = load_language_model(args.lm_rescore, train_config=args.lm_train_config)
        if not args.old_lm:
            raise RescoringError("--lm_rescore needs --old_lm, the language model of the graph")
        old = load_language_model(args.old_lm)
    rescorer = Rescorer(nbest, new, old)
    candidates = list(
        grid(
            _values(args.lm_scale, 1 / acoustic_scale),
            _values(args.word_insertion_penalty, 0.0),
            _values(args.lm_weight, 1.0 if new else 0.0),
        )
    )
    if args.tuned:
        candidates = [read_options(args.tuned)]
    if getattr(args, "tune_on", None):
        trials = tune(rescorer, read_transcripts(args.tune_on), candidates)
        print(format_trials(trials))
        candidates = [trials[0].options]
        write_options(args.output / "tuned.json", candidates[0])
        print(f"written: {args.output}/tuned.json")
    if len(candidates) > 1:
        raise RescoringError("several values of an option need --tune_on, a dev part's text")
    write_text(args.output / "text", rescorer.best(candidates[0]))
    print(f"{args.output}/text: {_described(candidates[0])}")


def _values(given: float | list[float] | None, default: float) -> list[float]:
    if given is None:
        return [default]
    return given if isinstance(given, list) else [given]


def _described(options: RescoringOptions) -> str:
    return (
        f"lm_scale {options.lm_scale:g}, word_insertion_penalty "
        f"{options.word_insertion_penalty:g}, lm_weight {options.lm_weight:g}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Rescore; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="espnet-quant4 hybrid-rescore", description=(__doc__ or "").replace("``", "")
    )
    parser.add_argument(
        "--nbest", type=Path, nargs="+", required=True, help="nbest folders, one a job"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for text")
    parser.add_argument("--tune_on", type=Path, help="text of the dev part that the lists are of")
    add_rescoring_arguments(parser, lists=True)
    args = parser.parse_args(arguments)
    rescore(args, args.nbest)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("hybrid-rescore", main))
