"""An embedding whose table is packed."""

from __future__ import annotations

import torch

from espnet_quant4.int4.int4_module import (
    Description,
    Int4Module,
    check_place,
)
from espnet_quant4.kernels import native
from espnet_quant4.kernels.tracing import graph_break, refuse_tracing
from espnet_quant4.nn import QuantEmbedding
from espnet_quant4.nn.quantized_module import get_quantizer
from espnet_quant4.quantizers import Quantizer


class Int4Embedding(Int4Module):
    """Rows of a packed table as floats.

    Args:
        num_embeddings: rows.
        embedding_dim: columns.
        padding_idx: kept for those who ask; it changes nothing in inference.
    """

    # What torch.nn.Embedding has beside; a quantized table has none of it.
    max_norm: float | None = None
    norm_type = 2.0
    scale_grad_by_freq = False
    sparse = False

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None):
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = padding_idx

    @staticmethod
    def needed(embedding: QuantEmbedding) -> dict[str, Quantizer | None]:
        """Return the quantizers that codes are made with, by tensor; None where that is in float."""
        return {"weight": get_quantizer(embedding.quantizers, "weight")}

    @classmethod
    def from_quantized(cls, embedding: QuantEmbedding) -> Int4Embedding:
        """Return the codes of a trained table."""
        built = cls(embedding.num_embeddings, embedding.embedding_dim, embedding.padding_idx)
        quantizer = get_quantizer(embedding.quantizers, "weight")
        assert quantizer is not None
        built.add_weight("weight", quantizer, embedding.weight)
        return built

    @classmethod
    def empty_like(
        cls, embedding: QuantEmbedding, descriptions: dict[str, Description]
    ) -> Int4Embedding:
        """Return a table without content, to be filled by ``load_state_dict(..., assign=True)``."""
        built = cls(embedding.num_embeddings, embedding.embedding_dim, embedding.padding_idx)
        built.add_empty(descriptions)
        return built

    def described(self) -> dict[str, tuple[int, int] | None]:
        return {"weight": (self.num_embeddings, self.embedding_dim)}

    @graph_break
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Map token ids ``(...)`` to ``(..., embedding_dim)`` of `output_dtype`.

        Raises:
            IndexError: for an id that is not in the table.
            RuntimeError: on another device, and where a tracer or transform would not see the kernels.
        """
        refuse_tracing("Int4Embedding", input)
        check_place(input, "Int4Embedding")
        if input.numel() and not 0 <= int(input.min()) <= int(input.max()) < self.num_embeddings:
            raise IndexError(
                f"Int4Embedding: ids {int(input.min())} to {int(input.max())}; valid are 0 to "
                f"{self.num_embeddings - 1}."
            )
        if native.is_available():
            bits = self.descriptions["weight"]["bits"]
            scale = self.weight_scale.float()
            found = native.embedding(self.weight, self.embedding_dim, bits, scale, input.long())
            return found.to(self.output_dtype)
        table = self.codes("weight").float() * self.row_scale("weight").unsqueeze(1)
        return torch.nn.functional.embedding(input.long(), table).to(self.output_dtype)

    def extra_repr(self) -> str:
        bits = {name: d["bits"] for name, d in self.descriptions.items()}
        return f"{self.num_embeddings}, {self.embedding_dim}, bits={bits}"
