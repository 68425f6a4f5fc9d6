"""``torch.nn.Embedding`` with a quantized table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from espnet_quant4.nn.quantized_module import (
    QuantizedModule,
    Specification,
    build_quantizer,
    get_quantizer,
    quantize_weight,
)


class QuantEmbedding(QuantizedModule, torch.nn.Embedding):
    """Embedding whose table is quantized. Takes the arguments of ``torch.nn.Embedding``.

    Raises:
        ValueError: for ``max_norm``, which rewrites the table in the forward pass, and for
            ``sparse``, since a quantized table has a dense gradient.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.max_norm is not None or self.sparse:
            raise ValueError(
                f"QuantEmbedding: max_norm={self.max_norm}, sparse={self.sparse}; the valid choice "
                "is max_norm=None, sparse=False. Use torch.nn.Embedding for the others."
            )
        self._init_quantizers()

    def quant_sites(self) -> list[tuple[str, str]]:
        return [("", "embedding")]

    def set_quantizers(
        self, suffix: str, specifications: Mapping[str, Specification | None]
    ) -> None:
        quantizer = build_quantizer(specifications.get("weight"), "weight", self.num_embeddings)
        self.quantizers = torch.nn.ModuleDict({} if quantizer is None else {"weight": quantizer})
        self.quantizers.to(self.weight.device)
        self.quantizers.train(self.training)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Map token ids ``(...)`` int64 to ``(..., embedding_dim)``."""
        result = self.run_inference(input)
        if result is not NotImplemented:
            return result
        weight = quantize_weight(get_quantizer(self.quantizers, "weight"), self.weight)
        return torch.nn.functional.embedding(
            input, weight, self.padding_idx, scale_grad_by_freq=self.scale_grad_by_freq
        )
