"""What the INT4 modules share: packed weights as buffers, kernels that are made when first needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from espnet_quant4.int4.packing import pack, unpack
from espnet_quant4.kernels.tracing import cannot_follow, refuse_tracing
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

    Codes, scales and clips stay what they are when a model is brought to another precision; then
    `output_dtype` is what the module puts out. ``torch.compile`` leaves the modules to Python; tracers
    and transforms, which would not see the kernels, are refused.
    """

    descriptions: dict[str, Description]

    #: Of outputs; final states of an LSTM are float32.
    output_dtype = torch.float32

    def __init__(self) -> None:
        super().__init__()
        self.descriptions = {}
        self._kernels: Any = None
        self.eval()

    def described(self) -> dict[str, tuple[int, int] | None]:
        """Return what `descriptions` hold when complete: the shapes of weights, None for clips."""
        raise NotImplementedError

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
        """Add the described tensors without content, for ``load_state_dict(..., assign=True)``.

        Raises:
            ValueError: where these are not what such a module has.
        """
        for name, shape in self.described().items():
            found = descriptions.get(name)
            if found is None or (shape and tuple(found["shape"]) != shape):
                raise ValueError(
                    f"{name} is described as {found}, and a {type(self).__name__} of these sizes has "
                    f"{'a clip' if shape is None else f'a weight {shape}'} there"
                )
        unknown = descriptions.keys() - self.described().keys()
        if unknown:
            raise ValueError(f"a {type(self).__name__} of these sizes has no {sorted(unknown)}")
        for name, description in descriptions.items():
            self.descriptions[name] = dict(description)
            if description["role"] == "weight":
                rows, columns = description["shape"]
                width = (columns * description["bits"] + 7) // 8
                self.register_buffer(
                    name, torch.empty(rows, width, dtype=torch.uint8, device="meta")
                )
                scale = torch.empty(description["groups"], dtype=torch.float32, device="meta")
                self.register_buffer(f"{name}_scale", scale)
            else:
                self.register_buffer(name, torch.empty(1, dtype=torch.float32, device="meta"))

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

    def _apply(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        self._kernels = None
        became = fn(torch.empty(0, dtype=self.output_dtype, device="cpu")).dtype
        self.output_dtype = became if became.is_floating_point else self.output_dtype

        def move(tensor: torch.Tensor) -> torch.Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(move, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError as error:
            if "descriptions" not in self.__dict__ or name.startswith("__"):
                raise
            raise AttributeError(
                f"{type(self).__name__} has no attribute {name!r}: it holds codes, scales and clips, "
                "under the names of its state_dict(). Float weights and what trains them are "
                "those of the model that it was converted from."
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kernels": None}

    def __prepare_scriptable__(self) -> Any:
        # What torch.jit.script asks for first.
        raise RuntimeError(cannot_follow(type(self).__name__, "torch.jit.script"))

    def train(self, mode: bool = True) -> Int4Module:
        """Stay in evaluation: there is nothing to train."""
        return super().train(False)


def plain_input(x: torch.Tensor, name: str) -> torch.Tensor:
    """Return an activation as contiguous float32 without a gradient; as it is where it is that.

    Raises:
        RuntimeError: where a gradient would be lost, the tensor is not on the CPU, or a tracer or
            transform would not see the kernels.
    """
    refuse_tracing(name, x)
    if x.requires_grad:
        if torch.is_grad_enabled():
            raise RuntimeError(
                f"{name}: the input requires a gradient, and INT4 modules are for inference. Call "
                "them under torch.no_grad(), or train the quantized model that they come from."
            )
        x = x.detach()
    check_place(x, name)
    if x.dtype is not torch.float32:
        x = x.float()
    if x.is_neg() or x.layout is not torch.strided:
        # Its memory holds something else than its values.
        x = x.resolve_neg().to_dense()
    return x if x.is_contiguous() else x.contiguous()


def check_place(x: torch.Tensor, name: str) -> None:
    """Raise RuntimeError for a tensor that is not on the CPU."""
    if not x.is_cpu:
        raise RuntimeError(
            f"{name}: the input is on {x.device}; INT4 modules run on cpu. Move it there, or use the "
            "emulated model."
        )


def is_ready(quantizer: Quantizer) -> bool:
    """Whether a quantizer's clip is set, or follows from the weight."""
    is_set = quantizer.role == "weight" or quantizer.is_calibrated
    return is_set and not quantizer.calibrating
