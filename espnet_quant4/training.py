"""What ESPnet's training of a quantized model is asked, told and measured by.

`espnet_quant4.plugin` calls these from where ESPnet starts a training, validates, and writes
``config.yaml``. They do nothing for a model without layers of `espnet_quant4.nn`.
"""

from __future__ import annotations

import logging
import math
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from espnet_quant4.nn.scheme_record import check_resumed_scheme
from espnet_quant4.nn.tensors import quantized_tensors
from espnet_quant4.nn.watch import TensorCost, Watch, describe_quantization, table_of_costs
from espnet_quant4.quantizers.calibration import MUCH_CUT_OFF

HINT = (
    "# quant_... and frame_context below are of the package espnet_quant4. Where ESPnet does not know\n"
    "# them, install it in this Python and leave the variable ESPNET_QUANT4_DISABLE unset.\n"
)
#: Of ESPnet's statistics of a validation: the lowest signal-to-noise ratio, the largest share cut off.
WORST_SNR, MOST_CUT_OFF = "quant_worst_snr_db", "quant_most_cut_off_percent"


def before_training(model: torch.nn.Module, args: Namespace) -> None:
    """Refuse to go on with another scheme, and log what is quantized.

    Args:
        model: as built, before anything was loaded or written.
        args: ESPnet's options.

    Raises:
        SchemeError: where the training resumes one of another scheme.
    """
    if getattr(args, "collect_stats", False):
        return
    checkpoint = Path(getattr(args, "output_dir", None) or "", "checkpoint.pth")
    if getattr(args, "resume", False) and checkpoint.is_file():
        check_resumed_scheme(model, checkpoint)
    description = describe_quantization(model)
    if description is not None:
        logging.info(description)


@contextmanager
def watched_validation(
    model: torch.nn.Module, reporter: Any, options: Any, is_first_process: bool
) -> Iterator[None]:
    """Measure a model's quantized tensors on the first batches of the validation inside.

    Afterwards the log has a table, ESPnet's statistics its worst values, and tensorboard and wandb,
    where they are in use, all of it.

    Args:
        model: the model, or its wrapper for several devices.
        reporter: ESPnet's ``SubReporter`` of this validation.
        options: ESPnet's ``TrainerOptions``.
        is_first_process: of several; the others report only to ESPnet's statistics.
    """
    if next(quantized_tensors(model), None) is None or options.no_forward_run:
        yield
        return
    watch = Watch(model)
    # The copies of DataParallel compute on devices of their own: of them only weights are measured.
    several = isinstance(model, torch.nn.DataParallel)
    with nullcontext() if several else watch.activations():
        yield
    costs = watch.costs()
    if not costs:
        return
    finite = [cost.snr for cost in costs if math.isfinite(cost.snr)]
    reporter.register(
        {
            WORST_SNR: min(finite, default=math.nan),
            MOST_CUT_OFF: 100 * max(cost.cut_off for cost in costs),
        }
    )
    reporter.next()
    if is_first_process:
        epoch = reporter.get_epoch()
        logging.info(
            f"{epoch}epoch: quantization on the first batches of validation\n{table_of_costs(costs)}"
        )
        _warn_of_constants(costs)
        _to_tensorboard(costs, epoch, options)
        _to_wandb(costs, options)


def _warn_of_constants(costs: list[TensorCost]) -> None:
    """Warn of constant clips that cut off much: a training that was not calibrated met no refusal."""
    much = [
        f"{cost.name}: {100 * cost.cut_off:.1f} % beyond {cost.clip:g}"
        for cost in costs
        if cost.cut_off > MUCH_CUT_OFF and not cost.allow_clipping
    ]
    if much:
        logging.warning(
            f"quantization: constant clips cut off what nothing bounds: {'; '.join(much)}. In the "
            "scheme give these inputs a clip from data (unbounded: {quantizer: pact+, ...}), or say "
            "allow_clipping: true."
        )


def scalars(costs: list[TensorCost]) -> dict[str, float]:
    """Return all measures by the names that tensorboard and wandb show."""
    found = {}
    for cost in costs:
        found[f"quant/{cost.name}_snr_db"] = cost.snr
        found[f"quant/{cost.name}_cut_off_percent"] = 100 * cost.cut_off
        found[f"quant/{cost.name}_clip"] = cost.clip
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _to_tensorboard(costs: list[TensorCost], epoch: int, options: Any) -> None:
    if not options.use_tensorboard:
        return
    from torch.utils.tensorboard import SummaryWriter

    folder = Path(options.output_dir, "tensorboard", "quantization")
    with SummaryWriter(str(folder)) as writer:
        for name, value in scalars(costs).items():
            writer.add_scalar(name, value, epoch)


def _to_wandb(costs: list[TensorCost], options: Any) -> None:
    if options.use_wandb:
        import_module("wandb").log(scalars(costs))
