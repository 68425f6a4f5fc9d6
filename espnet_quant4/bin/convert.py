"""``espnet-quant4 convert``: one INT4 file from a trained model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(prog="espnet-quant4 convert", description=__doc__)
    parser.add_argument("--asr_train_config", type=Path, required=True, help="config.yaml")
    parser.add_argument(
        "--asr_model_file", type=Path, required=True, help="such as valid.loss.ave.pth"
    )
    parser.add_argument("--output", type=Path, required=True, help="such as model.int4")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    args = get_parser().parse_args(arguments)
    for path in (args.asr_train_config, args.asr_model_file):
        if not path.is_file():
            print(f"espnet-quant4 convert: {path}: no such file", file=sys.stderr)
            return 1
    from espnet2.tasks.asr import ASRTask

    from espnet_quant4.int4.model_file import save
    from espnet_quant4.report.model_size import measure

    model, train_args = ASRTask.build_model_from_file(
        args.asr_train_config, args.asr_model_file, "cpu"
    )
    try:
        size = save(model, vars(train_args), args.output)
    except ValueError as error:
        print(f"espnet-quant4 convert: {args.asr_model_file}: {error}", file=sys.stderr)
        return 1
    float32 = measure(model).float32
    print(
        f"{args.output}: {size:,} bytes; {float32:,} bytes of weights in float32; "
        f"{float32 / size:.2f} times smaller"
    )
    return 0
