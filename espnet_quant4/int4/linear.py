"""A linear layer on codes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from espnet_quant4.int4.int4_module import (
    Description,
    Int4Module,
    plain_input,
)
from espnet_quant4.kernels import int4_reference, native
from espnet_quant4.kernels.native import NativeLinear
from espnet_quant4.kernels.tracing import graph_break
from espnet_quant4.nn import QuantLinear
from espnet_quant4.nn.quantized_module import get_quantizer
from espnet_quant4.quantizers import Quantizer


@dataclass(frozen=True)
class Kernels:
    """What computes a layer: the C++ kernels, or where there are none the codes in PyTorch."""

    native: NativeLinear | None
    codes: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor | None
    input_clip: float
    input_max: int


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
        empty = torch.empty(out_features, dtype=torch.float32, device="meta")
        self.register_buffer("bias", empty if bias else None)

    @staticmethod
    def needed(linear: QuantLinear) -> dict[str, Quantizer | None]:
        """Return the quantizers that codes are made with, by tensor; None where that is in float."""
        return {name: get_quantizer(linear.quantizers, name) for name in ("weight", "input")}

    @classmethod
    def from_quantized(cls, linear: QuantLinear) -> Int4Linear:
        """Return the codes of a trained layer."""
        built = cls(linear.in_features, linear.out_features, linear.bias is not None)
        weight, x = (
            get_quantizer(linear.quantizers, "weight"),
            get_quantizer(linear.quantizers, "input"),
        )
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

    def described(self) -> dict[str, tuple[int, int] | None]:
        return {"weight": (self.out_features, self.in_features), "input_clip": None}

    def make_kernels(self) -> Kernels:
        codes = self.codes("weight")
        scale = (self.row_scale("weight") * self.activation_scale("input")).contiguous()
        bias = None if self.bias is None else self.bias.float().contiguous()
        packed = None
        if native.is_available():
            packed = NativeLinear(codes, self.max_code("weight"), scale, bias)
        return Kernels(packed, codes, scale, bias, self.clip("input"), self.max_code("input"))

    @graph_break
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Map ``(..., in_features)`` to ``(..., out_features)`` of `output_dtype`.

        Raises:
            RuntimeError: for an input of another width, on another device, with a gradient, or traced.
            ValueError: for NaN.
        """
        x = plain_input(input, "Int4Linear")
        shape = x.shape
        if not shape or shape[-1] != self.in_features:
            raise RuntimeError(
                f"Int4Linear: input of shape {tuple(shape)}; the last size has to be "
                f"{self.in_features}."
            )
        kernels = self.kernels()
        flat = x if len(shape) == 2 else x.view(math.prod(shape[:-1]), self.in_features)
        if kernels.native is not None:
            out = kernels.native.run(
                flat, kernels.input_clip, kernels.input_max, torch.get_num_threads()
            )
        else:
            out = int4_reference.linear(
                flat, kernels.input_clip, kernels.input_max, kernels.codes, kernels.scale,
                kernels.bias,
            )  # fmt: skip
        out = out if len(shape) == 2 else out.view(*shape[:-1], self.out_features)
        return out.to(self.output_dtype)

    def extra_repr(self) -> str:
        bits = {name: d["bits"] for name, d in self.descriptions.items()}
        return f"{self.in_features}, {self.out_features}, bits={bits}"
