"""Makes the page of an experiment from what training and decoding left in its folder."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from espnet_quant4.quantizers import Quantizer
from espnet_quant4.report.drawing import require_matplotlib
from espnet_quant4.report.experiment import data as validation
from espnet_quant4.report.experiment import folder, sections
from espnet_quant4.report.experiment.error import ReportError
from espnet_quant4.report.experiment.figures import ClipsByEpoch
from espnet_quant4.report.experiment.measures import TensorMeasures
from espnet_quant4.report.experiment.page import page
from espnet_quant4.report.experiment.tensors import (
    measure_weight,
    observing,
    quantized_weights,
    quantizers,
    scheme_name,
    unset_activations,
    with_progress,
)

NAME = "report.html"
# What the command offers where data cannot be read.
OTHER_DATA = "Or give other data with --data_path_and_name_and_type PATH,NAME,TYPE, or --batches 0."


def write_report(
    experiment: Path,
    task: Any,
    model: str = "valid.loss.ave.pth",
    data: Sequence[Sequence[str]] | None = None,
    batches: int = 8,
    pictures: Path | None = None,
) -> Path:
    """Write the page of an experiment into its folder; the same folder gives the same bytes.

    Args:
        experiment: folder with ``config.yaml``, a checkpoint and ``train.log``.
        task: ESPnet's class of the task that trained it.
        model: file name of the checkpoint.
        data: ``(path, name, type)`` of what activations are measured on; None: the validation data in
            ``config.yaml``, and only weights where its files are not there.
        batches: number of batches of it, of 4 utterances each; 0: only weights.
        pictures: folder that gets the picture of each quantized tensor too, as ``TENSOR.png``.

    Returns:
        The page's path.

    Raises:
        ReportError: where something is missing; says what to do.
    """
    require_matplotlib()
    given = None if data is None else validation.Files(tuple(tuple(entry) for entry in data))
    missing = [] if given is None else given.missing()
    if missing:
        raise ReportError(
            f"--data_path_and_name_and_type: {', '.join(missing)}: no such file from {Path.cwd()}"
        )
    built, args = folder.load_model(experiment, model, task)
    parts = [
        sections.settings(built, args, model),
        sections.sizes(built),
        sections.training(experiment),
        sections.error_rates(experiment),
    ]
    if any(isinstance(module, Quantizer) for module in built.modules()):
        quantized = list(quantized_weights(built))
        measures = [measure_weight(*entry) for entry in with_progress(quantized, "weights")]
        activations, note = _activations(built, args, task, given, batches)
        # Last, for it changes the model.
        clips = clips_by_epoch(built, experiment)
        parts += sections.quantized_tensors([*measures, *activations], clips, note, pictures)
    else:
        parts.append(sections.float_tensors(built))
    text = page(f"{experiment.resolve().name}: {model}", parts)
    output = experiment / NAME
    # An interrupted run leaves no half page.
    partial = output.with_name(f"{NAME}.part")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, output)
    return output


def _activations(
    model: torch.nn.Module,
    args: Namespace,
    task: Any,
    data: validation.Data | None,
    batches: int,
) -> tuple[list[TensorMeasures], str]:
    """Return the measures of inputs and hidden states, and what the page says of them."""
    if not quantizers(model, "activation"):
        return [], "No activation has a quantizer."
    if batches == 0:
        return [], "Only weights: --batches 0."
    chosen = data or validation.data_of(args, "valid")
    missing = [] if chosen is None else chosen.missing()
    if missing or chosen is None:
        gone = f"{', '.join(missing)} is not there" if missing else "config.yaml names none"
        return [], (
            f"Only weights: activations are measured on the validation data, and {gone}. Run the "
            "command in the folder where the training ran, or give data with "
            "--data_path_and_name_and_type."
        )
    # Greedy search for the error rates would show the layers a token at a time.
    for name in ("error_calculator", "error_calculator_trans"):
        if hasattr(model, name):
            setattr(model, name, None)
    unset = unset_activations(model)
    utterances = 0
    with torch.no_grad(), observing(model) as measures:
        read = validation.batches(task, args, chosen, batches, OTHER_DATA)
        for batch in with_progress(read, "activations"):
            utterances += len(next(iter(batch.values())))
            try:
                model(**batch)
            except RuntimeError as error:
                if not unset:
                    raise
                return [], (
                    f"Only weights: the clips of {len(unset)} activations were never set, such as "
                    f"{unset[0]}, and the model refuses evaluation: {error}"
                )
    found = [measure.result() for measure in measures.values()]
    seen = [entry for entry in found if entry.values]
    note = f"Activations of {utterances} utterances of {', '.join(chosen.names)}."
    if len(seen) < len(found):
        unseen = ", ".join(entry.name for entry in found if not entry.values)
        note += f" Nothing passed through {unseen}."
    return seen, note


def clips_by_epoch(model: torch.nn.Module, experiment: Path) -> dict[str, ClipsByEpoch]:
    """Return the clips of each tensor in each checkpoint of an epoch; loads them into the model."""
    found: dict[str, dict[int, tuple[float, float]]] = {}
    places = [(scheme_name(n), q) for n, q in quantizers(model, "activation")]
    checkpoints = folder.epoch_checkpoints(experiment)
    # A clip at one time is in the table already.
    if len(checkpoints) < 2:
        return {}
    for epoch, path in with_progress(checkpoints, "clips of epochs"):
        folder.load_checkpoint(model, path)
        with torch.no_grad():
            clips = [(name, q.clip(weight)) for name, weight, q in quantized_weights(model)]
            clips += [(name, q.clip()) for name, q in places if q.is_calibrated]
        for name, clip in clips:
            found.setdefault(name, {})[epoch] = float(clip.min()), float(clip.max())
    return dict(found)
