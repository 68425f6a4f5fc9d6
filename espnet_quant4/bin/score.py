"""Count word and character errors of a transcript, as NIST's sclite does."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="espnet-quant4 score", description=__doc__)
    parser.add_argument("reference", type=Path, help="Kaldi-style text file")
    parser.add_argument("hypothesis", type=Path, help="Kaldi-style text file")
    args = parser.parse_args(arguments)

    from espnet_quant4.report.results import count_errors

    print("unit   Snt   Wrd   Corr   Sub   Del   Ins   Err%  S.Err%")
    for unit, c in zip(
        ("word", "char"), count_errors(args.reference, args.hypothesis), strict=False
    ):
        print(
            f"{unit} {c.sentences:5} {c.words:5} {c.correct:6} {c.substitutions:5} {c.deletions:5} "
            f"{c.insertions:5} {c.error_rate:6.2f} {c.sentence_error_rate:7.2f}"
        )
    return 0
