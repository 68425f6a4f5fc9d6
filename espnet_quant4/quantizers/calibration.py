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

#: Share of the values beyond the clip that is worth a warning, or with a constant clip an error.
MUCH_CUT_OFF = 0.01

_warned = False


class ClippingError(ValueError):
    """A constant clip cuts off much of what calibration sees; names the tensors and what to do."""


@contextmanager
def calibrating(module: torch.nn.Module) -> Iterator[list[Quantizer]]:
    """Let a model's activation quantizers watch float forward passes, then set their clips.

    Inside, no quantizer of the model changes what passes through it. On exit each activation
    quantizer that saw data sets its clip by its ``init`` method; over several processes, to the
    mean of theirs. An exception inside leaves all clips as they were. What each clip cuts off is then
    in the quantizer's ``share_cut_off``; a warning names those above 1 %.

    Args:
        module: the model; its training flag is left alone, so call ``eval()`` first to calibrate
            without dropout.

    Yields:
        The model's activation quantizers.

    Raises:
        ClippingError: on exit, where a constant clip cuts off more than 1 % of what was seen and
            its scheme does not say ``allow_clipping: true``. All clips are as they were.
    """
    quantizers = [m for m in module.modules() if isinstance(m, Quantizer)]
    activations = [q for q in quantizers if q.role == "activation"]
    for quantizer in quantizers:
        quantizer.calibrating = True
    finished = False
    try:
        yield activations
        _check_constants(module, activations)
        finished = True
    finally:
        for quantizer in quantizers:
            quantizer.calibrating = False
            if not finished:
                quantizer._histogram = None
    for quantizer in activations:
        seen = quantizer._histogram
        synchronize_clip(quantizer, quantizer.finish_calibration())
        if seen is not None and not seen.is_empty:
            quantizer.share_cut_off = quantizer.share_beyond(seen)
    _warn_of_clipping(module, activations)
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
    with torch.no_grad(), calibrating(model) as activations:
        for batch in batches:
            model(**batch)
    return list(_named(model, activations))


def _tensor_name(quantizer: str) -> str:
    """Return the tensor's name: of ``rnn.quantizers.l0.input``, ``rnn.l0.input``."""
    return quantizer.replace(".quantizers", "")


def _named(
    module: torch.nn.Module, quantizers: Iterable[Quantizer]
) -> Iterator[tuple[str, Quantizer]]:
    wanted = set(quantizers)
    for name, found in module.named_modules():
        if isinstance(found, Quantizer) and found in wanted:
            yield _tensor_name(name) or type(found).__name__, found


def _check_constants(module: torch.nn.Module, activations: Iterable[Quantizer]) -> None:
    """Raise ClippingError where a constant clip cuts off much; all processes raise if one does."""
    complaints = []
    constants = [(n, q) for n, q in _named(module, activations) if not q.allow_clipping]
    shares = torch.zeros(len(constants))
    largest = torch.zeros(len(constants))
    for position, (_, quantizer) in enumerate(constants):
        if quantizer._histogram is not None:
            shares[position] = quantizer.share_beyond(quantizer._histogram)
            largest[position] = float(quantizer._histogram.maximum)
    if constants and torch.distributed.is_available() and torch.distributed.is_initialized():
        both = torch.cat([shares, largest]).to(constants[0][1].clip_value.device)
        torch.distributed.all_reduce(both, torch.distributed.ReduceOp.MAX)
        shares, largest = both.cpu().chunk(2)
    for (name, quantizer), share, most in zip(constants, shares, largest, strict=True):
        if share > MUCH_CUT_OFF:
            complaints.append(
                f"{name}: {100 * share:.1f} % beyond {float(quantizer.clip()):g}, "
                f"the largest {most:.3g}"
            )
    if complaints:
        raise ClippingError(
            f"a constant clip cuts off more than {100 * MUCH_CUT_OFF:g} % of what it is for: "
            f"{'; '.join(complaints)}. In the scheme give what nothing bounds a clip from data, such "
            "as input: {bounded: {quantizer: fix, bits: 4}, unbounded: {quantizer: pact+, bits: 4, "
            "init: mse}}, or say that this is wanted by allow_clipping: true beside the clip."
        )


def _warn_of_clipping(module: torch.nn.Module, activations: Iterable[Quantizer]) -> None:
    much = [
        f"{name}: {100 * q.share_cut_off:.1f} % beyond {float(q.clip()):.3g}"
        for name, q in _named(module, activations)
        if q.share_cut_off is not None and q.share_cut_off > MUCH_CUT_OFF
    ]
    if much:
        logging.warning(
            f"calibration: clips that cut off more than {100 * MUCH_CUT_OFF:g} % of what was seen: "
            f"{'; '.join(much)}"
        )


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
