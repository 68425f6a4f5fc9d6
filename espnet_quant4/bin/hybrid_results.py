"""``espnet-quant4 hybrid-results``: make the table of a hybrid recipe's experiments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_quant4.bin.arguments import refuse_twice, require_file_output
from espnet_quant4.bin.command import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="espnet-quant4 hybrid-results", description=__doc__)
    parser.add_argument("--systems", nargs="*", type=Path, default=[], help="experiments")
    parser.add_argument("--gmm", type=Path, help="folder of the GMM, where it was decoded too")
    parser.add_argument("--parts", nargs="+", default=["test"], help="decoded parts")
    parser.add_argument("--dumpdir", type=Path, required=True, help="folder of their data")
    parser.add_argument("--inference", required=True, help="name of the decoding configuration")
    parser.add_argument("--model", default="valid.loss.ave.pth", help="checkpoint decoded")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    args = parser.parse_args(arguments)

    from espnet_quant4.report import hybrid_results
    from espnet_quant4.report.results import to_markdown, write_json

    refuse_twice("--systems", args.systems)
    refuse_twice("--parts", args.parts)
    require_file_output("--output", args.output)
    rows = hybrid_results.collect(
        args.systems, args.parts, args.dumpdir, args.inference, args.model, args.gmm
    )
    write_json(rows, args.output)
    print(to_markdown(rows, hybrid_results.COLUMNS))
    print(f"\nsaved {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("hybrid-results", main))
