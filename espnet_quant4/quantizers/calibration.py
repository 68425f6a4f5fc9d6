"""Setting activation clips from data before quantization-aware training."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

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
    for quantizer in activations:
        synchronize_clip(quantizer, quantizer.finish_calibration())
    unset = [name for name, m in module.named_modules() if m in activations and not m.is_calibrated]
    if unset:
        logging.warning(
            f"calibration: {len(unset)} activation quantizers saw nothing, or nothing but zeros, and "
            f"have no clip: {', '.join(unset)}"
        )


def calibrate_on(
    model: torch.nn.Module, batches: Iterable[Mapping[str, Any]]
) -> list[tuple[str, Quantizer]]:
    """Set a model's activation clips from batches, without gradients; see `calibrating`.

    Args:
        model: in evaluation, to calibrate without dropout.
        batches: arguments of the model by name.

    Returns:
        Tensor and quantizer of each activation that is quantized.
    """
    names = {m: name for name, m in model.named_modules() if isinstance(m, Quantizer)}
    with torch.no_grad(), calibrating(model) as activations:
        for batch in batches:
            model(**batch)
    return [(names[quantizer].replace(".quantizers", ""), quantizer) for quantizer in activations]


def calibrate_from(quantizer: Quantizer, x: torch.Tensor) -> None:
    """Set an activation's clip from the first batch of a run that was not calibrated.

    Warns, once a process: one batch is less than calibration would have seen. A batch of zeros says
    nothing of the range, and leaves the clip to the next.

    Args:
        quantizer: one of role ``activation``.
        x: any shape.

    Raises:
        ValueError: where ``x`` holds no finite value.
    """
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            "Quantization-aware training starts without calibration: activation clips are set from "
            "the first batch. Run `espnet-quant4 calibrate` first (with --task hybrid or --task lm for "
            "those trainings) and start from its output (--init_param) to set them from more data.",
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
    has_data = bool(histogram.maximum.any())
    if has_data:
        quantizer.set_clip_from(histogram)
    synchronize_clip(quantizer, has_data)


def synchronize_clip(quantizer: Quantizer, has_data: bool) -> None:
    """Set a clip to its mean over the processes that had data, if there are several processes.

    Args:
        quantizer: one of role ``activation``. All processes must call this, with data or without:
            each waits for the others.
        has_data: whether this process set the clip.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    with torch.no_grad():
        clip = quantizer.clip_value
        total = torch.cat([clip, torch.ones_like(clip[:1])]) * float(has_data)
        torch.distributed.all_reduce(total)
        if bool(total[-1] > 0):
            clip.copy_(total[:-1] / total[-1])
            quantizer.calibrated.fill_(1)
