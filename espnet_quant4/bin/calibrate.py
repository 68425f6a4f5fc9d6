"""Set activation clips from data, before quantization-aware training.

Takes the options of ``espnet2.bin.asr_train``, or with ``--task hybrid`` those of
``espnet_quant4.bin.hybrid_train``, or with ``--task lm`` those of ``espnet2.bin.lm_train``, for the
run that is to follow: its ``--config``, the FP32 checkpoint as ``--init_param``, the training data.
The ``config.yaml`` of an experiment, which ESPnet's ``--dry_run`` writes too, will do as
``--config``: all options stand in it. A few training batches pass through the model in float,
without dropout and augmentation; the model with its clips set is saved, for ``--init_param`` of the
run.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from espnet_quant4.bin.task_class import SCHEME_OPTIONS, TASKS, task_class
from espnet_quant4.packed_models import packed_files
from espnet_quant4.text_files import read_yaml

# What ESPnet3 saves beside ESPnet2's options: its trainer, its data.
_ESPNET3_KEYS = ("trainer", "dataset")


def get_parser(task: str = "asr") -> Any:
    """Return ESPnet's parser of a task's training with the options of calibration added."""
    from espnet2.utils.types import str2bool

    parser = task_class(task).get_parser()
    parser.prog = "espnet-quant4 calibrate"
    parser.description = __doc__
    group = parser.add_argument_group("Calibration related")
    group.add_argument("--task", choices=TASKS, default="asr", help="which training follows")
    group.add_argument("--batches", type=int, default=16, help="number of training batches")
    group.add_argument("--output", type=Path, required=True, help="checkpoint to write")
    group.add_argument(
        "--random",
        type=str2bool,
        default=False,
        help="whether parameters that no --init_param sets may stay random",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Raises:
        ValueError: for options, files and models that cannot be calibrated; names what to do.
    """
    # The task first: it says which other options there are.
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--task", choices=TASKS, default="asr")
    first.add_argument("--config", type=Path)
    known, rest = first.parse_known_args(arguments)
    parser = get_parser(known.task)
    with only_options(known.config, parser) as config:
        named = [] if config is None else ["--config", str(config)]
        args = parser.parse_args(["--task", known.task, *named, *rest])
    args.config = known.config
    if args.batches < 1:
        raise ValueError(f"--batches {args.batches}: valid are 1 and above")
    model = calibrate(args)
    temporary = args.output.with_name(f"{args.output.name}.part")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), temporary)
    os.replace(temporary, args.output)
    print(f"saved {args.output}")
    return 0


@contextmanager
def only_options(config: Path | None, parser: argparse.ArgumentParser) -> Iterator[Path | None]:
    """Give a configuration that a parser takes: of an experiment's ``config.yaml``, the options in
    it.

    Args:
        config: a YAML file, or None.
        parser: that of the training.

    Raises:
        ValueError: for a packed model and for what ESPnet3 wrote.
        TextFileError, OSError: for a file that cannot be read.
    """
    if config is None:
        yield None
        return
    _refuse_packed(config)
    settings = read_yaml(config)
    if not isinstance(settings, dict):
        raise ValueError(f"--config {config}: holds no options; wanted is a YAML mapping.")
    if all(isinstance(settings.get(key), dict) for key in _ESPNET3_KEYS):
        raise ValueError(
            f"--config {config}: is of ESPnet3, whose data only its own trainer reads. There "
            "calibration is the callback espnet_quant4.asr.initial_parameters.InitialParameters of "
            "the training: name the checkpoint as its path, as egs/an4/esp3/conf/training_qat.yaml "
            "does."
        )
    # ESPnet saves, beside the options, which of them it requires.
    if "required" not in settings:
        yield config
        return
    options = {action.dest for action in parser._actions} - {"config", "help"}
    with tempfile.TemporaryDirectory(prefix="espnet_quant4_") as folder:
        import yaml

        written = Path(folder, "config.yaml")
        kept = {key: value for key, value in settings.items() if key in options}
        written.write_text(yaml.safe_dump(kept), encoding="utf-8")
        yield written


def _refuse_packed(config: Path) -> None:
    files = packed_files(config)
    if files is None:
        return
    role = {name.rpartition("_")[2]: file for name, file in files.items()}
    raise ValueError(
        f"--config {config}: is a packed model. Unpack it, then give --config "
        f"{role.get('config', 'config.yaml')} --init_param {role.get('file', 'model.pth')} and "
        "training data (--train_data_path_and_name_and_type, --train_shape_file), which it does "
        "not hold."
    )


def calibrate(args: Any) -> torch.nn.Module:
    """Build the model that ``args`` describe and set its activation clips from training batches.

    Args:
        args: as `get_parser` returns them.

    Raises:
        ValueError: for a model without quantizers, and for one whose parameters are random though
            ``args.random`` is not set.
        CheckpointError: for an ``--init_param`` that does not fit.
    """
    from espnet2.train.distributed_utils import DistributedOption
    from tqdm import tqdm

    from espnet_quant4.quantizers import Quantizer
    from espnet_quant4.quantizers.calibration import calibrate_on

    if not args.init_param and not args.random:
        raise ValueError(
            "no --init_param: clips of a model with random weights mean nothing. Give the trained "
            "float model's checkpoint (--init_param exp/asr_fp32/valid.loss.ave.pth), or say "
            "--random true where training is to start from random weights."
        )
    task = task_class(args.task)
    _check_data(task, args)
    torch.manual_seed(args.seed)
    model: torch.nn.Module = task.build_model(args)
    if not any(isinstance(module, Quantizer) for module in model.modules()):
        option = SCHEME_OPTIONS[args.task]
        raise ValueError(
            f"{args.config}: the model has no quantizer to calibrate. Name a scheme: {option}: "
            f"scheme: tailored, or --{option} scheme=tailored."
        )
    _load(model, args)
    distributed = DistributedOption(distributed=False, ngpu=0)
    factory = task.build_iter_factory(args=args, distributed_option=distributed, mode="train")
    iterator = factory.build_iter(1, shuffle=True)
    model.eval()
    first = islice((batch for _, batch in iterator), args.batches)
    activations = calibrate_on(model, tqdm(first, total=args.batches, desc="calibrate"))
    print(f"{'clip':>10}  bits  cut off  quantizer    tensor")
    for name, quantizer in activations:
        clip = quantizer.clip()[0].item()
        kind = type(quantizer).__name__.removesuffix("Quantizer")
        cut_off = (
            "" if quantizer.share_cut_off is None else f"{100 * quantizer.share_cut_off:.2f} %"
        )
        print(f"{clip:10.4f}  {quantizer.bits:4}  {cut_off:>7}  {kind:<12} {name}")
    return model


def _check_data(task: Any, args: Any) -> None:
    """Refuse training data that lack what the model reads."""
    given = [name for _, name, _ in args.train_data_path_and_name_and_type]
    missing = [name for name in task.required_data_names(train=True) if name not in given]
    if missing:
        raise ValueError(
            f"--train_data_path_and_name_and_type: names {', '.join(given) or 'nothing'}, and "
            f"{', '.join(missing)} is missing, which {task.__name__} trains on. Give it as "
            f"PATH,{missing[0]},TYPE, as for the training."
        )


def _load(model: torch.nn.Module, args: Any) -> None:
    """Load every ``--init_param``; refuse to leave parameters random that should not be."""
    from espnet_quant4.checkpoints import listed
    from espnet_quant4.initial_parameters import load_initial_parameters, still_random

    loaded: set[str] = set()
    for path in args.init_param:
        loaded |= load_initial_parameters(model, path, args.ignore_init_mismatch)
    random = still_random(model, loaded)
    if random and not args.random:
        raise ValueError(
            f"--init_param {' '.join(args.init_param)}: {len(random)} parameters of the model are "
            f"not in it and would stay random: {listed(random)}. Give a checkpoint of the whole "
            "model, or say --random true."
        )
    if random:
        print(f"{len(random)} parameters are random: {listed(random)}")
