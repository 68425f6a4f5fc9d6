"""What the INT4 modules share: packed weights as buffers, kernels that are made when first needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from espnet_quant4.int4.packing import pack, unpack
from espnet_quant4.quantizers import Quantizer

Description = dict[str, Any]


class Int4Module(torch.nn.Module):
    """Base of the modules that compute on codes. For inference: no parameters, no gradient.

    All that a module knows is in buffers, under the parameter names of the float module: a weight is
    uint8, packed row by row at its bits; ``NAME_scale`` ``(groups,)`` float32 is what its codes are
    multiplied with; ``..._clip`` ``(1,)`` float32 is an activation's clip. `descriptions` adds what
    a tensor cannot say of itself.

    The C++ kernels keep the weights in an order of their own, which is made at the first call and
    again after buffers were loaded.
    """

    descriptions: dict[str, Description]

    def __init__(self) -> None:
        super().__init__()
        self.descriptions = {}
        self._kernels: Any = None
        self.eval()

    def add_weight(self, name: str, quantizer: Quantizer, weight: torch.Tensor) -> None:
        """Add a weight ``(rows, columns)`` float32 as codes."""
        weight = weight.detach().float().cpu()
        rows, columns = weight.shape
        self.descriptions[name] = {
            "role": "weight",
            "bits": quantizer.bits,
            "shape": [rows, columns],
            "groups": quantizer.groups,
        }
        self.register_buffer(name, pack(quantizer.codes(weight), quantizer.bits))
        scale = quantizer.clip(weight).detach().float().cpu() / quantizer.max_code
        self.register_buffer(f"{name}_scale", scale.contiguous())

    def add_activation(self, name: str, quantizer: Quantizer) -> None:
        """Add the clip of an activation under the name ``NAME_clip``."""
        self.descriptions[f"{name}_clip"] = {"role": "activation", "bits": quantizer.bits}
        self.register_buffer(f"{name}_clip", quantizer.clip().detach().float().cpu().clone())

    def add_empty(self, descriptions: Mapping[str, Description]) -> None:
        """Add the described tensors without content, for ``load_state_dict(..., assign=True)``."""
        for name, description in descriptions.items():
            self.descriptions[name] = dict(description)
            if description["role"] == "weight":
                rows, columns = description["shape"]
                width = (columns * description["bits"] + 7) // 8
                self.register_buffer(
                    name, torch.empty(rows, width, dtype=torch.uint8, device="meta")
                )
                scale = torch.empty(description["groups"], device="meta")
                self.register_buffer(f"{name}_scale", scale)
            else:
                self.register_buffer(name, torch.empty(1, device="meta"))

    def codes(self, name: str) -> torch.Tensor:
        """Return a weight's codes, int8 ``(rows, columns)``."""
        description = self.descriptions[name]
        return unpack(getattr(self, name), description["bits"], description["shape"][1])

    def row_scale(self, name: str) -> torch.Tensor:
        """Return what the codes of each row are multiplied with, ``(rows,)`` float32."""
        scale = getattr(self, f"{name}_scale").float()
        return scale.repeat_interleave(self.descriptions[name]["shape"][0] // scale.numel())

    def clip(self, name: str) -> float:
        """Return the clip of an activation."""
        return float(getattr(self, f"{name}_clip"))

    def max_code(self, name: str) -> int:
        """Return the largest code of a weight, or of the activation whose clip is ``NAME_clip``."""
        found = self.descriptions.get(name) or self.descriptions[f"{name}_clip"]
        return int(2 ** (found["bits"] - 1) - 1)

    def activation_scale(self, name: str) -> torch.Tensor:
        """Return the scale of an activation, ``(1,)`` float32."""
        return getattr(self, f"{name}_clip").float() / self.max_code(name)

    def make_kernels(self) -> Any:
        """Return what computes on this module's codes, in C++ or, without a library, in PyTorch."""
        raise NotImplementedError

    def kernels(self) -> Any:
        """Return what `make_kernels` made, now or at an earlier call."""
        # Two threads may both make it, with the same result; one of them is kept.
        found = self._kernels
        if found is None:
            found = self._kernels = self.make_kernels()
        return found

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._kernels = None
        super()._load_from_state_dict(*args, **kwargs)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self._kernels = None
        return super()._apply(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kernels": None}

    def train(self, mode: bool = True) -> Int4Module:
        """Stay in evaluation: there is nothing to train."""
        return super().train(False)


def plain_input(x: torch.Tensor, name: str) -> torch.Tensor:
    """Return an activation as contiguous float32 without a gradient; as it is where it is that.

    Raises:
        RuntimeError: where a gradient would be lost, or the tensor is not on the CPU.
    """
    if x.requires_grad:
        if torch.is_grad_enabled():
            raise RuntimeError(
                f"{name}: the input requires a gradient, and INT4 modules are for inference. Call "
                "them under torch.no_grad(), or train the quantized model that they come from."
            )
        x = x.detach()
    if not x.is_cpu:
        raise RuntimeError(
            f"{name}: the input is on {x.device}; INT4 modules run on cpu. Move it there, or use the "
            "emulated model."
        )
    if x.dtype is not torch.float32:
        x = x.float()
    return x if x.is_contiguous() else x.contiguous()


def is_ready(quantizer: Quantizer) -> bool:
    """Whether a quantizer's clip is set, or follows from the weight."""
    is_set = quantizer.role == "weight" or quantizer.is_calibrated
    return is_set and not quantizer.calibrating
