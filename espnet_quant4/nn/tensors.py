"""The tensors of a model that have quantizers, by the names that schemes know them by."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from espnet_quant4.nn.quantized_module import QuantizedModule
from espnet_quant4.quantizers import Quantizer


def tensors_of_layer(module: torch.nn.Module) -> Iterator[tuple[str, Quantizer]]:
    """Yield name and quantizer of each quantized tensor of one layer, such as ``l0.weight_ih``."""
    if isinstance(module, QuantizedModule):
        for name, found in module.quantizers.named_modules():
            if isinstance(found, Quantizer):
                yield name, found


def quantized_tensors(model: torch.nn.Module) -> Iterator[tuple[str, Quantizer]]:
    """Yield name and quantizer of each quantized tensor, such as ``encoder.enc.0.nbrnn.l0.input``."""
    for place, module in model.named_modules():
        for name, quantizer in tensors_of_layer(module):
            yield ".".join(filter(None, (place, name))), quantizer


def weight_of(module: QuantizedModule, name: str) -> torch.Tensor:
    """Return the weight that a layer's quantizer is for.

    Args:
        module: the layer.
        name: as of `tensors_of_layer`.
    """
    place, _, tensor = name.rpartition(".")
    weight: torch.Tensor = getattr(module, f"{tensor}_{place}" if place else tensor)
    return weight


def float_weights(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the parameters with rows and columns that no quantizer is for."""
    quantized = {
        id(weight_of(module, name))
        for module in model.modules()
        for name, quantizer in tensors_of_layer(module)
        if quantizer.role == "weight" and isinstance(module, QuantizedModule)
    }
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2 and id(parameter) not in quantized:
            yield name, parameter
