"""Estimate the denominator graph of LF-MMI training on an alignment.

An n-gram of pdf ids with self-loops, written in OpenFst's text format with labels pdf id + 1. Use the
alignment of the training part; ids of a network that scores every n-th frame only are taken at
every n-th frame (--subsample, as in model_conf).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from espnet_quant4.bin.command import run_command
from espnet_quant4.hybrid.stage_record import Stage, check_complete, file_input
from espnet_quant4.text_files import read_text

UTTERANCES_BETWEEN_MESSAGES = 10_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="hybrid_denominator", description=__doc__)
    parser.add_argument("--pdf_ids", type=Path, required=True, help="text: 'utterance id id ...'")
    parser.add_argument("--num_pdfs", required=True, help="a number, or a file that holds it")
    parser.add_argument("--output", type=Path, required=True, help="graph to write, den.fst")
    parser.add_argument("--order", type=int, default=2, help="of the n-gram, 1 to 4 (%(default)s)")
    parser.add_argument("--subsample", type=int, default=1, help="take every n-th id")
    args = parser.parse_args(arguments)

    from espnet_quant4.hybrid.lfmmi.denominator import estimate_denominator
    from espnet_quant4.hybrid.lfmmi.fst_text import write_fst

    num_pdfs = read_num_pdfs(args.num_pdfs)
    if args.subsample < 1:
        raise ValueError(f"--subsample {args.subsample}: valid are 1 and above.")
    check_complete(args.pdf_ids.parent)
    inputs = {"pdf_ids": file_input(args.pdf_ids)}
    options = {"num_pdfs": num_pdfs, "order": args.order, "subsample": args.subsample}
    stage = Stage("hybrid-denominator", args.output, (), inputs, options)
    if not stage.begin(print):
        return 0
    graph = estimate_denominator(read_pdf_ids(args.pdf_ids, args.subsample), num_pdfs, args.order)
    write_fst(graph, args.output)
    stage.finish()
    print(f"{args.output}: {graph.num_states} states, {len(graph.source)} arcs, {num_pdfs} pdfs")
    return 0


def read_num_pdfs(value: str) -> int:
    """Return the number that ``value`` is, or that stands in the file of that name.

    Raises:
        ValueError: for anything that is no number above 0.
    """
    text = value if value.lstrip("-").isdigit() else read_text(value).strip()
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"--num_pdfs {value}: {text!r} is no number above 0.")
    return int(text)


def read_pdf_ids(path: Path, subsample: int) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield the name and the pdf ids of each utterance, every ``subsample``-th.

    Raises:
        ValueError: for what is no number; names the line.
    """
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            utterance, *ids = line.split() or [""]
            try:
                pdf_ids = np.array(ids[::subsample], dtype=np.int64)
            except (ValueError, OverflowError) as error:
                raise ValueError(
                    f"{path}:{number}: utterance {utterance!r}: {error}; valid is 'utterance id "
                    "id ...', one pdf id a frame."
                ) from error
            yield utterance, pdf_ids
            if number % UTTERANCES_BETWEEN_MESSAGES == 0:
                print(f"{number} utterances", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run_command("hybrid-denominator", main))
