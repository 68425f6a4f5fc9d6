"""``espnet-quant4 hybrid-gmm``: train a GMM-HMM, align with it or with a network, score with it."""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import kaldiio

from espnet_quant4.bin.command import run_command
from espnet_quant4.hybrid.features.extraction import compute_features, mfcc
from espnet_quant4.hybrid.gmm.records import ALIGNED, data_inputs, lang_inputs, model_inputs
from espnet_quant4.hybrid.gmm.stages import (
    align_data,
    log_likelihoods,
    realign_data,
    train_monophone,
    train_triphone,
)
from espnet_quant4.hybrid.gmm.training import MONOPHONE, Schedule
from espnet_quant4.hybrid.kaldi_files.archives import Matrices
from espnet_quant4.hybrid.lang.lang_directory import Lang
from espnet_quant4.hybrid.stage_record import Stage, listed_inputs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a step; returns the exit status."""
    args = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s: %(message)s")
    _check(args)
    _run(args)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse numbers that nothing can be made with.

    Raises:
        ValueError: naming the option.
    """
    for name in ("gaussians", "iterations", "leaves", "beam", "retry_beam", "acoustic_scale"):
        value = getattr(args, name, 1)
        if not 0 < value < math.inf:
            raise ValueError(f"--{name} {value}: valid are numbers above 0")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="espnet-quant4 hybrid-gmm", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    for name, help_text in (
        ("mono", "train phones without context"),
        ("triphone", "train tied states of triphones"),
        ("align", "align a data folder: what a network trains on"),
        ("realign", "the same with a network's scores"),
        ("scores", "log likelihoods, to decode with the GMM"),
    ):
        step = steps.add_parser(name, help=help_text)
        step.add_argument(
            "--data", type=Path, required=True, help="folder of wav.scp, text, utt2spk"
        )
        step.add_argument("--output", type=Path, required=True)
        if name != "scores":
            step.add_argument("--lang", type=Path, required=True, help="lang folder")
        if name in ("align", "realign", "scores"):
            step.add_argument("--model", type=Path, required=True, help="folder of final.mdl, tree")
        if name in ("mono", "triphone"):
            default = MONOPHONE if name == "mono" else Schedule()
            step.add_argument("--gaussians", type=int, default=default.gaussians)
            step.add_argument("--iterations", type=int, default=default.iterations)
            step.add_argument("--seed", type=int, default=default.seed)
        if name == "triphone":
            step.add_argument("--alignments", type=Path, required=True, help="model before")
            step.add_argument("--leaves", type=int, default=400, help="most pdfs")
            step.add_argument("--lda", choices=["true", "false"], default="false")
        if name == "align":
            step.add_argument("--beam", type=float, default=10.0)
            step.add_argument("--retry_beam", type=float, default=40.0)
        if name == "realign":
            step.add_argument("--scores", type=Path, required=True, help="scores.scp of a network")
            step.add_argument("--acoustic_scale", type=float, default=0.1)
    return parser


def _schedule(args: argparse.Namespace, default: Schedule) -> Schedule:
    iterations = args.iterations
    return Schedule(
        iterations,
        args.gaussians,
        round(iterations * default.grow_until / default.iterations),
        tuple(
            sorted({max(1, round(n * iterations / default.iterations)) for n in default.realign})
        ),
        seed=args.seed,
    )


def _stage(args: argparse.Namespace) -> Stage:
    """Return the record of a step: all that its output depends on."""
    inputs = data_inputs(args.data, transcripts=args.step != "scores")
    if args.step != "scores":
        inputs |= lang_inputs(args.lang, pronunciations=args.step == "mono")
    if args.step == "triphone":
        inputs |= model_inputs(args.alignments, alignments=True)
    elif args.step != "mono":
        inputs |= model_inputs(args.model)
    if args.step == "realign":
        inputs |= listed_inputs("scores.scp", args.scores)
    names = (
        "gaussians",
        "iterations",
        "seed",
        "leaves",
        "lda",
        "beam",
        "retry_beam",
        "acoustic_scale",
    )
    options = {name: getattr(args, name) for name in names if hasattr(args, name)}
    makes = ("scores.scp",) if args.step == "scores" else ALIGNED
    return Stage(f"hybrid-gmm {args.step}", args.output, makes, inputs, options, keeps=("pdf_ids",))


def _run(args: argparse.Namespace) -> None:
    if args.step != "realign":
        # First, so that a recording that cannot be used costs no model.
        compute_features(args.data, args.data / "mfcc", mfcc)
    stage = _stage(args)
    if not stage.begin(logging.info):
        return
    if args.step == "scores":
        _write_scores(args)
    else:
        _train_or_align(args, Lang(args.lang))
    stage.finish()


def _train_or_align(args: argparse.Namespace, lang: Lang) -> None:
    if args.step == "mono":
        train_monophone(args.data, lang, args.output, _schedule(args, MONOPHONE))
    elif args.step == "triphone":
        train_triphone(
            args.data,
            lang,
            args.alignments,
            args.output,
            args.leaves,
            _schedule(args, Schedule()),
            args.lda == "true",
        )
    elif args.step == "align":
        align_data(args.data, lang, args.model, args.output, args.beam, args.retry_beam)
    else:
        scores = Matrices(args.scores)
        realign_data(scores, args.data, lang, args.model, args.output, args.acoustic_scale)


def _write_scores(args: argparse.Namespace) -> None:
    args.output.mkdir(parents=True, exist_ok=True)
    partial = args.output / "scores.scp.part"
    with kaldiio.WriteHelper(f"ark,scp:{args.output}/scores.ark,{partial}") as writer:
        for utterance, values in log_likelihoods(args.data, args.model).items():
            writer(utterance, values)
    partial.replace(args.output / "scores.scp")


if __name__ == "__main__":
    sys.exit(run_command("hybrid-gmm", main))
