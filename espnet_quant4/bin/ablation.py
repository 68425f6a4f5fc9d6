"""Make the table and figures of an ablation: each variant's error rate against FP32's.

    espnet-quant4 ablation --file egs/an4/ablation.yaml --family asr --seeds 1 2 3 \\
        --experiments 'exp/seed{seed}/asr_{variant}' --part decode_asr/dev \\
        --reference dump/raw/dev/text --output ablation.json --figure ablation.svg
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from espnet_quant4.bin.arguments import require_file_output
from espnet_quant4.bin.command import run_command
from espnet_quant4.bin.variants import add_selection


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="espnet-quant4 ablation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_selection(parser)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument(
        "--experiments", required=True, help="folders, with {seed} and {variant} in their names"
    )
    parser.add_argument("--part", type=Path, required=True, help="decoding, such as decode_asr/dev")
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--figure", type=Path, help="bars with intervals, SVG or PNG")
    parser.add_argument("--size_figure", type=Path, help="error rate against size")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    args = get_parser().parse_args(arguments)

    from espnet_quant4.bin.task_class import task_class
    from espnet_quant4.report.ablation import COLUMNS, Experiments, collect, for_table
    from espnet_quant4.report.ablation_figures import draw_bars, draw_sizes
    from espnet_quant4.report.drawing import require_matplotlib
    from espnet_quant4.report.results import to_markdown, write_json
    from espnet_quant4.scheme_variants import read_variants, select

    for option, path in (
        ("--output", args.output),
        ("--figure", args.figure),
        ("--size_figure", args.size_figure),
    ):
        require_file_output(option, path)
    if args.figure is not None or args.size_figure is not None:
        require_matplotlib()
    _, variants = read_variants(args.file)
    experiments = Experiments(args.experiments, args.seeds, args.part)
    selected = select(variants, args.family, args.only)
    # Behind the checks of what is given: it imports ESPnet.
    experiments = replace(experiments, task=task_class(args.family))
    rows = collect(selected, experiments, args.reference)
    write_json(rows, args.output)
    if args.figure is not None:
        draw_bars(rows, args.figure)
    if args.size_figure is not None:
        draw_sizes(rows, args.size_figure)
    print(to_markdown(for_table(rows), COLUMNS))
    print(f"\nsaved {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("ablation", main))
