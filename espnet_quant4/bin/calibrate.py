"""Set the activation clips of a quantized model from data, before quantization-aware training.

Takes the options of ``espnet2.bin.asr_train``, or with ``--task hybrid`` those of
``espnet_quant4.bin.hybrid_train``, for the run that is to follow: its ``--config``, the FP32
checkpoint as ``--init_param``, the training data. The ``config.yaml`` of an experiment, which
ESPnet's ``--dry_run`` writes too, will do as ``--config``: all options stand in it. A few training
batches pass through the model in float, without dropout and augmentation; the model with its clips
set is saved, for ``--init_param`` of the run.
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
import yaml

from espnet_quant4.bin.task_class import TASKS, task_class


def get_parser(task: str = "asr") -> Any:
    """Return ESPnet's parser of a task's training with the options of calibration added."""
    parser = task_class(task).get_parser()
    parser.prog = "espnet-quant4 calibrate"
    parser.description = __doc__
    group = parser.add_argument_group("Calibration related")
    group.add_argument("--task", choices=TASKS, default="asr", help="which training follows")
    group.add_argument("--batches", type=int, default=16, help="number of training batches")
    group.add_argument("--output", type=Path, required=True, help="checkpoint to write")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    import espnet_quant4.plugin  # the switch that turns the plugin off is not for this command

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
    espnet_quant4.plugin.register()
    if args.batches < 1:
        raise SystemExit(f"--batches {args.batches}: valid are 1 and above")
    model = calibrate(args)
    temporary = args.output.with_name(f"{args.output.name}.part")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), temporary)
    os.replace(temporary, args.output)
    print(f"saved {args.output}")
    return 0


@contextmanager
def only_options(config: Path | None, parser: argparse.ArgumentParser) -> Iterator[Path | None]:
    """Give a configuration that a parser takes: of an experiment's ``config.yaml``, the options in it.

    Args:
        config: a YAML file, or None.
        parser: that of the training.
    """
    settings = None
    if config is not None and config.is_file():
        settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    # ESPnet saves, beside the options, which of them it requires.
    if not isinstance(settings, dict) or "required" not in settings:
        yield config
        return
    options = {action.dest for action in parser._actions} - {"config", "help"}
    with tempfile.TemporaryDirectory(prefix="espnet_quant4_") as folder:
        written = Path(folder, "config.yaml")
        kept = {key: value for key, value in settings.items() if key in options}
        written.write_text(yaml.safe_dump(kept), encoding="utf-8")
        yield written


def calibrate(args: Any) -> torch.nn.Module:
    """Build the model that ``args`` describe and set its activation clips from training batches.

    Args:
        args: as `get_parser` returns them.

    Raises:
        SystemExit: for a model without quantizers.
    """
    from espnet2.torch_utils.load_pretrained_model import load_pretrained_model
    from espnet2.train.distributed_utils import DistributedOption
    from tqdm import tqdm

    from espnet_quant4.quantizers import Quantizer
    from espnet_quant4.quantizers.calibration import calibrate_on

    torch.manual_seed(args.seed)
    task = task_class(args.task)
    model: torch.nn.Module = task.build_model(args)
    if not any(isinstance(module, Quantizer) for module in model.modules()):
        raise SystemExit(
            f"{args.config}: the model has no quantizer to calibrate. Name a scheme: model_conf: "
            "scheme: tailored, or --model_conf scheme=tailored."
        )
    for path in args.init_param:
        load_pretrained_model(path, model, args.ignore_init_mismatch, map_location="cpu")
    option = DistributedOption(distributed=False, ngpu=0)
    factory = task.build_iter_factory(args=args, distributed_option=option, mode="train")
    iterator = factory.build_iter(1, shuffle=True)
    model.eval()
    first = islice((batch for _, batch in iterator), args.batches)
    activations = calibrate_on(model, tqdm(first, total=args.batches, desc="calibrate"))
    print(f"{'clip':>10}  bits  quantizer    tensor")
    for name, quantizer in activations:
        clip = quantizer.clip()[0].item()
        kind = type(quantizer).__name__.removesuffix("Quantizer")
        print(f"{clip:10.4f}  {quantizer.bits:4}  {kind:<12} {name}")
    return model
