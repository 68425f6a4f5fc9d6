"""A linear layer on codes."""

from __future__ import annotations

import torch

from espnet_quant4.int4.int4_module import (
    Description,
    Int4Module,
    as_input,
    is_native,
    is_ready,
    quantizer_of,
)
from espnet_quant4.kernels import int4_reference
from espnet_quant4.kernels.native import NativeLinear
from espnet_quant4.nn import QuantLinear


class Int4Linear(Int4Module):
    """``y = s_x s_W (Q(x) W_q^T) + b`` with integer sums.

    Args:
        in_features: columns of the weight.
        out_features: rows of the weight.
        bias: whether there is one.
    """

    bias: torch.Tensor | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.register_buffer("bias", torch.empty(out_features, device="meta") if bias else None)

    @staticmethod
    def can_convert(linear: QuantLinear) -> bool:
        """Whether weight and input of a layer are quantized, with clips that are set."""
        return is_ready([quantizer_of(linear, "weight"), quantizer_of(linear, "input")])

    @classmethod
    def from_quantized(cls, linear: QuantLinear) -> Int4Linear:
        """Return the codes of a trained layer."""
        built = cls(linear.in_features, linear.out_features, linear.bias is not None)
        weight, x = quantizer_of(linear, "weight"), quantizer_of(linear, "input")
        assert weight is not None and x is not None
        built.add_weight("weight", weight, linear.weight)
        built.add_activation("input", x)
        if linear.bias is not None:
            built.bias = linear.bias.detach().float().cpu().clone()
        return built

    @classmethod
    def empty_like(cls, linear: QuantLinear, descriptions: dict[str, Description]) -> Int4Linear:
        """Return a layer without content, to be filled by ``load_state_dict(..., assign=True)``."""
        built = cls(linear.in_features, linear.out_features, linear.bias is not None)
        built.add_empty(descriptions)
        return built

    def make_kernels(self) -> NativeLinear | tuple[torch.Tensor, torch.Tensor]:
        codes = self.codes("weight")
        scale = self.row_scale("weight") * self.activation_scale("input")
        if not is_native():
            return codes, scale
        bias = None if self.bias is None else self.bias.float().contiguous()
        return NativeLinear(codes, self.max_code("weight"), scale.contiguous(), bias)

    @torch.no_grad()
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Map ``(..., in_features)`` to ``(..., out_features)`` float32.

        Raises:
            RuntimeError: for an input of another width, on another device, or with a gradient.
            ValueError: for NaN.
        """
        x = as_input(input, "Int4Linear")
        if x.dim() == 0 or x.size(-1) != self.in_features:
            raise RuntimeError(
                f"Int4Linear: input of shape {tuple(x.shape)}; the last size has to be "
                f"{self.in_features}."
            )
        flat = x.reshape(-1, self.in_features).contiguous()
        kernels, clip, largest = self.kernels(), self.clip("input"), self.max_code("input")
        if isinstance(kernels, NativeLinear):
            out = kernels.run(flat, clip, largest, torch.get_num_threads())
        else:
            out = int4_reference.linear(flat, clip, largest, *kernels, self.bias)
        return out.view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        bits = {name: d["bits"] for name, d in self.descriptions.items()}
        return f"{self.in_features}, {self.out_features}, bits={bits}"
