"""``espnet-quant4 convert``: one INT4 file from a trained model."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from espnet_quant4.packed_models import packed_files, unpacked

# What is converted, by task.
WHAT = {"asr": "recognizer", "hybrid": "hybrid acoustic model", "lm": "language model"}


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(prog="espnet-quant4 convert", description=__doc__)
    for task, what in WHAT.items():
        parser.add_argument(f"--{task}_train_config", type=Path, help=f"config.yaml of a {what}")
        parser.add_argument(
            f"--{task}_model_file",
            type=Path,
            help="its checkpoint, such as valid.loss.ave.pth; or a packed model, which has its own "
            "config.yaml",
        )
    parser.add_argument(
        "--log_prior", type=Path, help="of a hybrid acoustic model: Kaldi text vector to store too"
    )
    parser.add_argument("--output", type=Path, required=True, help="such as model.int4")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status.

    Raises:
        ValueError, OSError: for files that are not there, do not belong together, or cannot be
            converted.
    """
    parser = get_parser()
    args = parser.parse_args(arguments)
    given = [
        task
        for task in WHAT
        if getattr(args, f"{task}_train_config") or getattr(args, f"{task}_model_file")
    ]
    if len(given) != 1:
        pairs = [f"--{task}_train_config and --{task}_model_file" for task in WHAT]
        parser.error(f"give {', or '.join(pairs)}")
    task = given[0]
    if args.log_prior is not None and task != "hybrid":
        parser.error("--log_prior belongs to --hybrid_model_file")
    config, checkpoint = getattr(args, f"{task}_train_config"), getattr(args, f"{task}_model_file")
    if checkpoint is not None and checkpoint.is_dir():
        raise ValueError(_in_folder(task, checkpoint))
    is_packed = checkpoint is not None and packed_files(checkpoint) is not None
    if checkpoint is None or (config is None and not is_packed):
        parser.error(f"--{task}_train_config and --{task}_model_file go together")
    if config is not None and is_packed:
        parser.error(
            f"{checkpoint} is a packed model, which has its own configuration; leave out "
            f"--{task}_train_config"
        )
    for path in (config, checkpoint, args.log_prior):
        if path is not None and not path.exists():
            raise ValueError(f"{path}: no such file")
    with files_of(task, config, checkpoint) as (config, checkpoint, prior):
        convert_files(task, config, checkpoint, args.log_prior or prior, args.output)
    return 0


def _in_folder(task: str, folder: Path) -> str:
    """Return what to give instead of a folder, such as an experiment's or ESPnet3's ``model_pack``."""
    found = sorted([*folder.rglob("config.yaml"), *folder.rglob("*.pth")])
    files = f"; in it there are {', '.join(map(str, found[:6]))}" if found else ""
    return (
        f"{folder}: is a folder; give the configuration and the checkpoint of the {WHAT[task]} "
        f"(--{task}_train_config, --{task}_model_file){files}."
    )


@contextmanager
def files_of(
    task: str, config: Path | None, checkpoint: Path
) -> Iterator[tuple[Path, Path, Path | None]]:
    """Give configuration, checkpoint and log prior of a model, unpacked if it is packed.

    Raises:
        ValueError: for a packed model of another task.
    """
    if config is not None:
        yield config, checkpoint, None
        return
    roles = packed_files(checkpoint) or {}
    config_role, model_role = f"{task}_train_config", f"{task}_model_file"
    # ESPnet packs a language model as `lm_file`.
    model_role = next((r for r in (model_role, f"{task}_file") if r in roles), model_role)
    if config_role not in roles or model_role not in roles:
        raise ValueError(
            f"{checkpoint}: is a packed model of {', '.join(roles) or 'nothing'}; a {WHAT[task]} has "
            f"{config_role} and {model_role}."
        )
    with unpacked(checkpoint) as files:
        prior = files.get("log_prior")
        yield Path(files[config_role]), Path(files[model_role]), Path(prior) if prior else None


def convert_files(
    task: str, config: Path, checkpoint: Path, log_prior: Path | None, output: Path
) -> None:
    """Convert a model; prints what stays in float, and the sizes.

    Raises:
        ValueError, OSError: as `main`.
    """
    from espnet_quant4.bin.task_class import task_class
    from espnet_quant4.hybrid.model.prior import read_vector
    from espnet_quant4.int4 import convert, parts_in_float
    from espnet_quant4.report.model_size import measure
    from espnet_quant4.trained_model import load_trained_model

    prior = None if log_prior is None else read_vector(log_prior)
    model, train_args = load_trained_model(task_class(task), config, checkpoint)
    try:
        converted = convert(model)
        size = _save(task, converted, vars(train_args), output, prior)
    except ValueError as error:
        raise ValueError(f"{checkpoint}: {error}") from error
    for part in parts_in_float(converted):
        print(f"float: {part.name} ({part.kind}, {part.parameters:,} numbers): {part.reason}")
    float32 = measure(model).float32
    print(f"{output}: {compare_sizes(size, float32)}")


def compare_sizes(size: int, float32: int) -> str:
    """Return a sentence on a file's bytes beside those of its weights in float32."""
    smaller = size <= float32
    times = float32 / size if smaller else size / float32
    what = (
        "smaller" if smaller else "larger: what is not weights outweighs them in a model this small"
    )
    return f"{size:,} bytes; {float32:,} bytes of weights in float32; {times:.2f} times {what}"


def _save(task: str, model: Any, config: dict[str, Any], output: Path, prior: Any) -> int:
    if task == "hybrid":
        from espnet_quant4.hybrid.model_file import save as save_hybrid

        return save_hybrid(model, config, output, prior)
    if task == "lm":
        from espnet_quant4.int4.lm_file import save as save_lm

        return save_lm(model, config, output)
    from espnet_quant4.int4.model_file import save

    return save(model, config, output)
