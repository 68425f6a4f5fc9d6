"""``torch.nn.Linear`` with quantized weight and input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from espnet_quant4.nn.quantized_module import (
    QuantizedModule,
    Specification,
    build_quantizer,
    get_quantizer,
    quantize_activation,
    quantize_weight,
)


class QuantLinear(QuantizedModule, torch.nn.Linear):
    """Linear layer ``y = Q(x) Q(W)^T + b``; the bias stays in float32.

    Takes the arguments of ``torch.nn.Linear``.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._init_quantizers()

    @classmethod
    def from_float(cls, linear: torch.nn.Linear) -> QuantLinear:
        """Return a quantized layer that shares the parameters of a float one."""
        quantized = cls(
            linear.in_features, linear.out_features, linear.bias is not None, device="meta"
        )
        quantized.weight, quantized.bias = linear.weight, linear.bias
        quantized.train(linear.training)
        return quantized

    def quant_sites(self) -> list[tuple[str, str]]:
        return [("", "linear")]

    def set_quantizers(
        self, suffix: str, specifications: Mapping[str, Specification | None]
    ) -> None:
        built = {
            "weight": build_quantizer(specifications.get("weight"), "weight", self.out_features),
            "input": build_quantizer(specifications.get("input"), "activation", 1),
        }
        self.quantizers = torch.nn.ModuleDict({k: q for k, q in built.items() if q is not None})
        self.quantizers.to(self.weight.device)
        self.quantizers.train(self.training)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Map ``(..., in_features)`` to ``(..., out_features)``."""
        if len(self.quantizers) == 0:
            return super().forward(input)
        result = self.run_inference(input)
        if result is not NotImplemented:
            return result
        weight = quantize_weight(get_quantizer(self.quantizers, "weight"), self.weight)
        quantizer = get_quantizer(self.quantizers, "input")
        x = quantize_activation(quantizer, input, dropout=self.dropout_of_input)
        return torch.nn.functional.linear(x, weight, self.bias)
