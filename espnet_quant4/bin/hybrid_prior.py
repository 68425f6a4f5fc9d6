"""Write the log prior of pdf ids that decoding subtracts from log posteriors.

From the counts of the alignment that the network was trained on:

    espnet-quant4 hybrid-prior --pdf_counts ALI/pdf_counts --output EXP/log_prior

or from the network's own posteriors on training data, as ``hybrid_inference`` without ``--log_prior``
writes them; ``--pdf_counts`` then tells which pdf ids were never trained:

    espnet-quant4 hybrid-prior --log_posteriors OUT/scores.scp \\
        --pdf_counts ALI/pdf_counts --output EXP/log_prior
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from espnet_quant4.bin.command import run_command
from espnet_quant4.hybrid.stage_record import Stage, check_complete, file_input, listed_inputs


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="espnet-quant4 hybrid-prior",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pdf_counts", type=Path, help="frames of each pdf id: [ n0 n1 ... ]")
    parser.add_argument(
        "--log_posteriors", type=Path, nargs="+", default=[], help="index files (scp) of matrices"
    )
    parser.add_argument(
        "--prior_floor",
        type=float,
        default=1e-10,
        help="relative frequency up to which a pdf id counts as never seen",
    )
    parser.add_argument("--output", type=Path, required=True)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = get_parser()
    args = parser.parse_args(arguments)
    if args.pdf_counts is None and not args.log_posteriors:
        parser.error("give --pdf_counts, --log_posteriors or both")
    logging.basicConfig(format="%(levelname)s: %(message)s")

    from espnet_quant4.hybrid.model import prior

    stage = _stage(args)
    if not stage.begin(print):
        return 0
    counts = None if args.pdf_counts is None else prior.read_vector(args.pdf_counts)
    if args.log_posteriors:
        frequencies = prior.mean_posteriors(_matrices(args.log_posteriors))
        found = prior.log_prior(frequencies, args.prior_floor)
        if counts is not None:
            found = prior.exclude_unseen(found, counts)
    elif counts is not None:
        found = prior.log_prior(counts, args.prior_floor)
    prior.write_vector(args.output, found)
    stage.finish()
    print(f"saved {args.output}: {len(found)} pdf ids")
    return 0


def _stage(args: argparse.Namespace) -> Stage:
    inputs = {}
    if args.pdf_counts is not None:
        check_complete(args.pdf_counts.parent)
        inputs["pdf_counts"] = file_input(args.pdf_counts)
    for number, index in enumerate(args.log_posteriors):
        inputs |= listed_inputs(f"log_posteriors {number}", index)
    return Stage("hybrid-prior", args.output, (), inputs, {"prior_floor": args.prior_floor})


def _matrices(indices: Sequence[Path]) -> Iterator[Any]:
    from tqdm import tqdm

    from espnet_quant4.hybrid.kaldi_files.archives import Matrices

    for index in indices:
        loaded = Matrices(index)
        for name in tqdm(loaded, desc=str(index), unit="utt", disable=not sys.stderr.isatty()):
            yield loaded[name]


if __name__ == "__main__":
    sys.exit(run_command("hybrid-prior", main))
