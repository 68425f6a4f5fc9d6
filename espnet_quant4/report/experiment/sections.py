"""The page's sections."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

import torch

from espnet_quant4.quantizers import Quantizer
from espnet_quant4.quantizers.registry import name_of
from espnet_quant4.quantizers.statistics import FixedQuantizer
from espnet_quant4.report.experiment import figures, folder
from espnet_quant4.report.experiment.figures import ClipsByEpoch
from espnet_quant4.report.experiment.measures import TensorMeasures, worst_first
from espnet_quant4.report.experiment.page import (
    FORMULA,
    Section,
    paragraph,
    picture,
    ranking,
    table,
    tensor_section,
)
from espnet_quant4.report.experiment.tensors import (
    float_weights,
    measure_weight,
    quantizers,
    scheme_name,
    with_progress,
)
from espnet_quant4.report.model_size import measure

LEGEND = (
    "Values before quantization, counted on a scale that is logarithmic above 1. Red: the clip; grey: "
    "the grid. A tensor with several clips is shown in units of them. Beside it: the clip over the "
    "epochs whose checkpoints are kept, where there are several; 0 is calibration."
)
FLOAT = (
    "A float model: no tensor has a quantizer, so there is no signal-to-quantization-noise ratio. A "
    "scheme adds quantizers: model_conf: scheme: tailored."
)


def settings(model: torch.nn.Module, args: Namespace, checkpoint: str) -> Section:
    """Say which model it is, and which quantizer is on which tensor."""
    options = vars(args)
    classes = [
        (key, str(options[key]))
        for key in ("model", "frontend", "preencoder", "encoder", "decoder", "seed")
        if options.get(key) is not None
    ]
    content = [table(("", ""), [("checkpoint", checkpoint), *classes])]
    rows = [
        (scheme_name(place), name_of(q), str(q.bits), str(q.groups), q.role, _set_by(q))
        for role in ("weight", "activation")
        for place, q in quantizers(model, role)
    ]
    if rows:
        titles = ("tensor", "quantizer", "bits", "clips", "role", "clip comes from")
        content.append(table(titles, rows))
    left = [name for name, _ in float_weights(model)]
    if rows and left:
        content.append(paragraph(f"In float32: {', '.join(left)}.", "note"))
    return Section("Settings", content)


def _set_by(quantizer: Quantizer) -> str:
    if isinstance(quantizer, FixedQuantizer):
        return "the scheme"
    if quantizer.learned:
        return "training"
    return "the weight itself" if quantizer.role == "weight" else "data"


def sizes(model: torch.nn.Module) -> Section:
    """Say how large the model is at its bits and in float32."""
    size = measure(model)
    parameters = sum(p.numel() for p in model.parameters())
    rows = [
        ("parameters", f"{parameters:,}"),
        ("weights at their bits, bytes", f"{size.packed:,}"),
        ("weights in float32, bytes", f"{size.float32:,}"),
        ("times smaller", f"{size.float32 / size.packed:.2f}"),
        ("mean bits a weight", f"{size.weight_bits:.2f}"),
    ]
    return Section("Size", [table(("", ""), rows)])


def training(experiment: Path) -> Section:
    """Draw losses and learning rate by epoch."""
    epochs = folder.training_curve(experiment)
    if not epochs:
        there = any(experiment.glob("train*.log"))
        text = "No finished epoch: " + (
            "none stands in train.log." if there else "there is no train.log in the folder."
        )
        return Section("Training", [paragraph(text, "note")])
    last = epochs[-1]
    text = f"Epoch {last.epoch}: train loss {last.train_loss:g}, valid loss {last.valid_loss:g}."
    drawn = picture(figures.training_curve(epochs), "Losses and learning rate over the epochs")
    return Section("Training", [drawn, paragraph(text)])


def error_rates(experiment: Path) -> Section:
    """Give the error rates of what was decoded."""
    rows = folder.error_rates(experiment)
    if not rows:
        text = "Nothing is decoded and scored: no score_wer/result.txt lies below the folder."
        return Section("Error rates", [paragraph(text, "note")])
    columns = {
        "part": "decoded part",
        "error": "WER %",
        "cer": "CER %",
        "sentence_error": "SER %",
        "substitutions": "Sub %",
        "deletions": "Del %",
        "insertions": "Ins %",
        "words": "words",
        "sentences": "utterances",
    }
    cells = [[row[key] for key in columns] for row in rows]
    return Section("Error rates", [table(list(columns.values()), cells)])


def quantized_tensors(
    tensors: list[TensorMeasures],
    clips: Mapping[str, ClipsByEpoch],
    note: str,
    pictures: Path | None = None,
) -> list[Section]:
    """Rank the tensors of a quantized model and draw each.

    Args:
        tensors: in any order.
        clips: over the epochs, by name of tensor.
        note: what the activations were measured on.
        pictures: folder that gets each picture too, as ``TENSOR.png``.
    """
    tensors = worst_first(tensors)
    numbers = {t.name: number for number, t in enumerate(tensors, start=1)}
    drawn = [
        (t, figures.tensor(t, clips.get(t.name, {}))) for t in with_progress(tensors, "pictures")
    ]
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        for t, png in drawn:
            (pictures / f"{t.name}.png").write_bytes(png)
    table_of_all = ranking(tensors, numbers)
    return [
        Section(
            "Tensors, worst first",
            [table_of_all, paragraph(FORMULA, "note"), paragraph(note, "note")],
        ),
        Section(
            "Histograms",
            [
                paragraph(LEGEND, "note"),
                *(tensor_section(t, numbers[t.name], png) for t, png in drawn),
            ],
        ),
    ]


def float_tensors(model: torch.nn.Module) -> Section:
    """Draw the weights of a float model."""
    tensors = [
        measure_weight(n, w, None) for n, w in with_progress(float_weights(model), "weights")
    ]
    pictures = [
        tensor_section(t, number, figures.tensor(t, {}))
        for number, t in enumerate(with_progress(tensors, "pictures"), start=1)
    ]
    return Section("Histograms of weights", [paragraph(FLOAT, "note"), *pictures])
