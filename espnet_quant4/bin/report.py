"""``espnet-quant4 report``: one HTML page about an experiment: what quantization does to each tensor.

Reads a folder that training wrote, and trains nothing: settings, sizes, training curve, error rates,
and of each quantized tensor histogram, clip, signal-to-quantization-noise ratio, clipping and use of
its codes. Run it where the training ran, so that relative paths hold.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_quant4.bin.command import run_command
from espnet_quant4.bin.task_class import SPEECH_TASKS, task_class


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(prog="espnet-quant4 report", description=__doc__)
    parser.add_argument("folder", type=Path, help="experiment, in which report.html is written")
    parser.add_argument(
        "--task", choices=SPEECH_TASKS, default="asr", help="which training wrote it"
    )
    parser.add_argument("--model", default="valid.loss.ave.pth", help="checkpoint in the folder")
    parser.add_argument(
        "--data_path_and_name_and_type",
        type=_data,
        action="append",
        metavar="PATH,NAME,TYPE",
        help="data that activations are measured on, once for each name; default: the validation data "
        "in config.yaml if it is there",
    )
    parser.add_argument(
        "--batches", type=int, default=8, help="how many batches of 4 utterances; 0: weights only"
    )
    parser.add_argument(
        "--pictures",
        type=Path,
        help="folder that gets the picture of each quantized tensor too, as TENSOR.png",
    )
    return parser


def _data(text: str) -> tuple[str, ...]:
    fields = tuple(text.split(","))
    if len(fields) != 3:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not PATH,NAME,TYPE, such as dump/raw/dev/wav.scp,speech,sound"
        )
    return fields


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = get_parser()
    args = parser.parse_args(arguments)
    if args.batches < 0:
        parser.error(f"--batches {args.batches}: valid are 0 and above")
    import espnet_quant4.plugin  # the switch that turns the plugin off is not for this command
    from espnet_quant4.report.experiment.report import write_report

    espnet_quant4.plugin.register()
    written = write_report(
        args.folder,
        task_class(args.task),
        args.model,
        args.data_path_and_name_and_type,
        args.batches,
        args.pictures,
    )
    print(f"saved {written}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("report", main))
