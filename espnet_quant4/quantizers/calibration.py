"""Setting activation clips from data before quantization-aware training."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed

from espnet_quant4.quantizers.base import Quantizer
from espnet_quant4.quantizers.clip_search import Histogram

_warned = False


@contextmanager
def calibrating(module: torch.nn.Module) -> Iterator[list[Quantizer]]:
    """Let a model's activation quantizers watch float forward passes, then set their clips.

    Inside, no quantizer of the model changes what passes through it. On exit each activation
    quantizer that saw data sets its clip by its ``init`` method; over several processes, to the
    mean of theirs. An exception inside leaves all clips as they were.

    Args:
        module: the model; its training flag is left alone, so call ``eval()`` first to calibrate
            without dropout.

    Yields:
        The model's activation quantizers.
    """
    quantizers = [m for m in module.modules() if isinstance(m, Quantizer)]
    activations = [q for q in quantizers if q.role == "activation"]
    for quantizer in quantizers:
        quantizer.calibrating = True
    finished = False
    try:
        yield activations
        finished = True
    finally:
        for quantizer in quantizers:
            quantizer.calibrating = False
            if not finished:
                quantizer._histogram = None
    unset = 0
    for quantizer in activations:
        if quantizer.finish_calibration():
            synchronize_clip(quantizer)
        elif not quantizer.is_calibrated:
            unset += 1
    if unset:
        logging.warning(f"calibration: {unset} activation quantizers saw no data and have no clip")


def calibrate_from(quantizer: Quantizer, x: torch.Tensor) -> None:
    """Set an activation's clip from the first batch of a run that was not calibrated.

    Warns, once a process: one batch is less than calibration would have seen.

    Args:
        quantizer: one of role ``activation``.
        x: any shape.
    """
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            "Quantization-aware training starts without calibration: activation clips are set from "
            "the first batch. Run `espnet-quant4 calibrate` first and start from its output "
            "(--init_param) to set them from more data.",
            UserWarning,
            stacklevel=2,
        )
    histogram = Histogram(1)
    histogram.add(x.detach().float().abs().reshape(1, -1))
    if histogram.is_empty:
        raise ValueError(
            f"{type(quantizer).__name__}: no finite value in the first batch to set a clip from; "
            "check the features for NaN."
        )
    quantizer.set_clip_from(histogram)
    synchronize_clip(quantizer)


def synchronize_clip(quantizer: Quantizer) -> None:
    """Set a clip to its mean over all processes, if there are several."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    with torch.no_grad():
        torch.distributed.all_reduce(quantizer.clip_value)
        quantizer.clip_value /= torch.distributed.get_world_size()
