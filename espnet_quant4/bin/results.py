"""Make the table of a recipe's experiments, as text and as JSON."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from espnet_quant4.bin.arguments import refuse_twice, require_file_output, whole_number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="espnet-quant4 results", description=__doc__)
    parser.add_argument("--systems", nargs="+", type=Path, required=True, help="experiments")
    parser.add_argument("--parts", nargs="+", default=["test"], help="decoded parts")
    parser.add_argument("--dumpdir", type=Path, required=True, help="folder of their data")
    parser.add_argument("--inference", required=True, help="name of the decoding configuration")
    parser.add_argument("--model", default="valid.loss.ave.pth", help="checkpoint decoded")
    parser.add_argument("--fs", type=whole_number(1), required=True, help="sampling rate in Hz")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    args = parser.parse_args(arguments)

    from espnet_quant4.report import results

    refuse_twice("--systems", args.systems)
    refuse_twice("--parts", args.parts)
    require_file_output("--output", args.output)
    rows = results.collect(
        args.systems, args.parts, args.dumpdir, args.inference, args.model, args.fs
    )
    results.write_json(rows, args.output)
    print(results.to_markdown(rows))
    print(f"\nsaved {args.output}")
    return 0
