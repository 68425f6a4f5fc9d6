"""``espnet-quant4 hybrid-gmm``: train a GMM-HMM, align with it or with a network, score with it."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import kaldiio

from espnet_quant4.bin.command import run_command
from espnet_quant4.hybrid.features.extraction import FeatureError
from espnet_quant4.hybrid.gmm.stages import (
    GmmError,
    align_data,
    log_likelihoods,
    realign_data,
    train_monophone,
    train_triphone,
)
from espnet_quant4.hybrid.gmm.training import MONOPHONE, Schedule
from espnet_quant4.hybrid.lang.lang_directory import Lang


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a step; returns the exit status."""
    args = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s: %(message)s")
    try:
        _run(args)
    except (GmmError, FeatureError, OSError) as error:
        print(f"hybrid-gmm {args.step}: {error}", file=sys.stderr)
        return 1
    return 0


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


def _run(args: argparse.Namespace) -> None:
    done = args.output / ("scores.scp" if args.step == "scores" else "final.mdl")
    if done.exists():
        logging.info(f"{done}: there already")
        return
    if args.step == "mono":
        train_monophone(args.data, Lang(args.lang), args.output, _schedule(args, MONOPHONE))
    elif args.step == "triphone":
        train_triphone(
            args.data,
            Lang(args.lang),
            args.alignments,
            args.output,
            args.leaves,
            _schedule(args, Schedule()),
            args.lda == "true",
        )
    elif args.step == "align":
        align_data(args.data, Lang(args.lang), args.model, args.output, args.beam, args.retry_beam)
    elif args.step == "realign":
        scores = kaldiio.load_scp(str(args.scores))
        realign_data(
            scores, args.data, Lang(args.lang), args.model, args.output, args.acoustic_scale
        )
    else:
        args.output.mkdir(parents=True, exist_ok=True)
        partial = args.output / "scores.scp.part"
        with kaldiio.WriteHelper(f"ark,scp:{args.output}/scores.ark,{partial}") as writer:
            for utterance, values in log_likelihoods(args.data, args.model).items():
                writer(utterance, values)
        partial.replace(done)


if __name__ == "__main__":
    sys.exit(run_command("hybrid-gmm", main))
