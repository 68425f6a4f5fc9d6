"""The tensors of a model that have quantizers, and how activations are seen as they pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from espnet_quant4.nn import QuantLSTM
from espnet_quant4.nn.quantized_module import QuantizedModule
from espnet_quant4.quantizers import Quantizer
from espnet_quant4.report.experiment.measures import Measure, TensorMeasures
from espnet_quant4.report.model_size import weight_quantizers

Item = TypeVar("Item")


def scheme_name(name: str) -> str:
    """Return how schemes name the tensor of a quantizer's place in the model."""
    return ".".join(part for part in name.split(".") if part != "quantizers")


def quantized_weights(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor, Quantizer]]:
    """Yield name, weight and quantizer of each quantized weight, in the order of the model."""
    names = {q: scheme_name(name) for name, q in quantizers(model, "weight")}
    for module in model.modules():
        for parameter, quantizer in weight_quantizers(module):
            yield names[quantizer], getattr(module, parameter), quantizer


def quantizers(model: torch.nn.Module, role: str) -> list[tuple[str, Quantizer]]:
    """Return place and quantizer of each ``weight`` or each ``activation``."""
    found = [(n, m) for n, m in model.named_modules() if isinstance(m, Quantizer)]
    return [(name, quantizer) for name, quantizer in found if quantizer.role == role]


def float_weights(model: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Return the parameters with rows and columns that no quantizer is for."""
    quantized = {id(weight) for _, weight, _ in quantized_weights(model)}
    return [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if parameter.dim() >= 2 and id(parameter) not in quantized
    ]


def measure_weight(name: str, weight: torch.Tensor, quantizer: Quantizer | None) -> TensorMeasures:
    """Return the measures of a weight; without quantizer those of a float tensor."""
    measure = Measure(name, quantizer, tuple(weight.shape))
    measure.add_weight(weight)
    return measure.result()


def unset_activations(model: torch.nn.Module) -> list[str]:
    """Return the activations whose clip was never set; a model that uses one refuses evaluation."""
    return [scheme_name(n) for n, q in quantizers(model, "activation") if not q.is_calibrated]


@contextmanager
def observing(model: torch.nn.Module) -> Iterator[dict[str, Measure]]:
    """Measure the activations of a model in evaluation, before they are quantized, padding left out.

    What passes through the model is what it computes in evaluation: weights and activations are
    quantized.  No clip changes; a clip that was never set is refused as ever.

    Args:
        model: in evaluation, on the CPU.

    Yields:
        The measures by name; complete when the context ends.
    """
    found = [(scheme_name(n), q) for n, q in quantizers(model, "activation")]
    measures = {name: Measure(name, quantizer) for name, quantizer in found}
    observed = [quantizer for _, quantizer in found]
    layers = [m for m in model.modules() if isinstance(m, QuantizedModule)]
    runners = [(layer, layer.inference_runner) for layer in layers]
    recurrent = [(layer, layer.fused) for layer in layers if isinstance(layer, QuantLSTM)]
    try:
        # Only the plain forward pass shows what it quantizes.
        for layer in layers:
            layer.inference_runner = None
        for lstm, _ in recurrent:
            lstm.fused = False
        for quantizer, measure in zip(observed, measures.values(), strict=True):
            if quantizer.is_calibrated:
                # Layers show a quantizer their data only in training; here it takes no note of them.
                quantizer.training = True
                quantizer.__dict__["observe"] = measure.add_activation
        yield measures
    finally:
        for layer, runner in runners:
            layer.inference_runner = runner
        for lstm, fused in recurrent:
            lstm.fused = fused
        for quantizer in observed:
            quantizer.training = False
            quantizer.__dict__.pop("observe", None)


def with_progress(entries: Iterable[Item], what: str) -> Iterator[Item]:
    """Yield the entries and show how far it is."""
    from tqdm import tqdm

    yield from tqdm(entries, desc=what)
