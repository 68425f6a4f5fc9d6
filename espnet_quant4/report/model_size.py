"""How large a model's weights are at the bits that its scheme gives them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from espnet_quant4.quantizers import Quantizer

BYTES_OF_FLOAT = 4


@dataclass(frozen=True)
class ModelSize:
    """Sizes of a model's parameters, in bytes.

    Attributes:
        packed: quantized weights at their bits, a float32 clip a group, all else in float32.
        float32: all weights in float32.
        weight_bits: mean bits a weight over quantized and float weights.
    """

    packed: int
    float32: int
    weight_bits: float


def measure(model: torch.nn.Module) -> ModelSize:
    """Measure a model of `espnet_quant4.nn` layers.

    Counts parameters and the clips of quantizers; buffers such as feature statistics are left out
    on both sides.
    """
    bits_of: dict[int, int] = {}
    clips = 0
    clip_ids = set()
    for module in model.modules():
        for name, quantizer in weight_quantizers(module):
            bits_of[id(getattr(module, name))] = quantizer.bits
    for module in model.modules():
        if isinstance(module, Quantizer):
            clips += module.groups
            clip_ids.add(id(module.clip_value))
    bits = total = 0
    for parameter in model.parameters():
        if id(parameter) in clip_ids:
            continue
        total += parameter.numel()
        bits += parameter.numel() * bits_of.get(id(parameter), 8 * BYTES_OF_FLOAT)
    return ModelSize(
        packed=-(-bits // 8) + clips * BYTES_OF_FLOAT,
        float32=total * BYTES_OF_FLOAT,
        weight_bits=bits / total,
    )


def weight_quantizers(module: torch.nn.Module) -> list[tuple[str, Quantizer]]:
    """Return ``(name of the weight, its quantizer)`` of one layer."""
    found: list[tuple[str, Quantizer]] = []
    quantizers = getattr(module, "quantizers", None)
    if not isinstance(quantizers, torch.nn.ModuleDict):
        return found
    for key, entry in quantizers.items():
        # An LSTM has a dictionary for each layer and direction; others one for the module.
        inner = entry.items() if isinstance(entry, torch.nn.ModuleDict) else [(key, entry)]
        for tensor, quantizer in inner:
            name = f"{tensor}_{key}" if isinstance(entry, torch.nn.ModuleDict) else tensor
            if isinstance(quantizer, Quantizer) and quantizer.role == "weight":
                found.append((name, quantizer))
    return found
