"""Make one table of the same experiments with several seeds: every run, mean and spread.

espnet-quant4 study --results exp/study/seed*/results.json --output results.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_quant4.bin.arguments import require_file_output
from espnet_quant4.bin.command import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="espnet-quant4 study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--results", type=Path, nargs="+", required=True, help="one a seed")
    parser.add_argument("--rate", choices=("wer", "cer"), default="wer")
    parser.add_argument("--output", type=Path, required=True, help="JSON file of all runs to write")
    args = parser.parse_args(arguments)

    from espnet_quant4.report.results import to_markdown, write_json
    from espnet_quant4.report.study import COLUMNS, merge, summarize

    require_file_output("--output", args.output)
    rows = merge(args.results, args.rate)
    write_json(rows, args.output)
    print(to_markdown(summarize(rows, args.rate), COLUMNS))
    print(f"\nsaved {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("study", main))
