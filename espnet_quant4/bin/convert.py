"""``espnet-quant4 convert``: one INT4 file from a trained model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# What is converted, by task.
WHAT = {"asr": "recognizer", "hybrid": "hybrid acoustic model"}


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(prog="espnet-quant4 convert", description=__doc__)
    for task, what in WHAT.items():
        parser.add_argument(f"--{task}_train_config", type=Path, help=f"config.yaml of a {what}")
        parser.add_argument(
            f"--{task}_model_file", type=Path, help="its checkpoint, such as valid.loss.ave.pth"
        )
    parser.add_argument(
        "--log_prior", type=Path, help="of a hybrid acoustic model: Kaldi text vector to store too"
    )
    parser.add_argument("--output", type=Path, required=True, help="such as model.int4")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = get_parser()
    args = parser.parse_args(arguments)
    given = [
        task
        for task in WHAT
        if getattr(args, f"{task}_train_config") or getattr(args, f"{task}_model_file")
    ]
    if len(given) != 1:
        parser.error(
            "give --asr_train_config and --asr_model_file, or --hybrid_train_config and "
            "--hybrid_model_file"
        )
    task = given[0]
    config, checkpoint = getattr(args, f"{task}_train_config"), getattr(args, f"{task}_model_file")
    if config is None or checkpoint is None:
        parser.error(f"--{task}_train_config and --{task}_model_file go together")
    if args.log_prior is not None and task != "hybrid":
        parser.error("--log_prior belongs to --hybrid_model_file")
    for path in (config, checkpoint, args.log_prior):
        if path is not None and not path.is_file():
            print(f"espnet-quant4 convert: {path}: no such file", file=sys.stderr)
            return 1
    from espnet_quant4.bin.task_class import task_class
    from espnet_quant4.report.model_size import measure

    model, train_args = task_class(task).build_model_from_file(config, checkpoint, "cpu")
    try:
        size = _save(task, model, vars(train_args), args)
    except ValueError as error:
        print(f"espnet-quant4 convert: {checkpoint}: {error}", file=sys.stderr)
        return 1
    float32 = measure(model).float32
    print(
        f"{args.output}: {size:,} bytes; {float32:,} bytes of weights in float32; "
        f"{float32 / size:.2f} times smaller"
    )
    return 0


def _save(task: str, model: Any, config: dict[str, Any], args: argparse.Namespace) -> int:
    if task == "asr":
        from espnet_quant4.int4.model_file import save

        return save(model, config, args.output)
    from espnet_quant4.hybrid.model.prior import read_vector
    from espnet_quant4.hybrid.model_file import save as save_hybrid

    prior = None if args.log_prior is None else read_vector(args.log_prior)
    return save_hybrid(model, config, args.output, prior)
