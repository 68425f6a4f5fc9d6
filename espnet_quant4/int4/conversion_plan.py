"""What of a model becomes INT4, what may not, and what stays in float."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from espnet_quant4.checkpoints import listed
from espnet_quant4.int4.embedding import Int4Embedding
from espnet_quant4.int4.int4_module import Int4Module, is_ready
from espnet_quant4.int4.linear import Int4Linear
from espnet_quant4.int4.lstm import Int4LSTM
from espnet_quant4.nn import QuantEmbedding, QuantLinear, QuantLSTM
from espnet_quant4.nn.quantized_module import QuantizedModule
from espnet_quant4.quantizers import Quantizer

Int4Class = type[Int4LSTM] | type[Int4Linear] | type[Int4Embedding]

CLASSES: dict[type[QuantizedModule], Int4Class] = {
    QuantLSTM: Int4LSTM,
    QuantLinear: Int4Linear,
    QuantEmbedding: Int4Embedding,
}
# What a subclass may define without changing what its layer computes.
_HARMLESS = {"extra_repr", "reset_parameters", "train", "eval", "flatten_parameters"}


@dataclass(frozen=True)
class FloatPart:
    """A layer that a converted model computes in float.

    Attributes:
        name: of the layer.
        kind: its class.
        parameters: how many numbers it holds.
        reason: why it is in float.
    """

    name: str
    kind: str
    parameters: int
    reason: str


def int4_class(module: torch.nn.Module) -> Int4Class | None:
    """Return the INT4 class of a quantized module; None for any other module."""
    for quantized, found in CLASSES.items():
        if isinstance(module, quantized):
            return found
    return None


def plan(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Return the layers that become INT4, by name.

    Raises:
        ValueError: as `convert` does.
    """
    what = type(model).__name__
    if any(isinstance(module, Int4Module) for module in model.modules()):
        raise ValueError(f"{what} is converted already: use it, or save it, as it is.")
    layers = {name: m for name, m in model.named_modules() if isinstance(m, QuantizedModule)}
    if not any(quantizers_of(module) for module in layers.values()):
        reason = (
            "none has a scheme"
            if layers
            else "none is of espnet_quant4.nn, such as encoder: quant_rnn"
        )
        raise ValueError(
            f"{what} has no layer to convert: {reason}. Train it with a scheme (model_conf: scheme: "
            "tailored; of a language model lm_conf: scheme), or calibrate it with one first."
        )
    _refuse_unset(what, layers)
    chosen = {name: m for name, m in layers.items() if not _float_tensors(m)}
    if not chosen:
        parts = listed([f"{n} ({', '.join(_float_tensors(m))})" for n, m in layers.items()])
        raise ValueError(
            f"{what} has no layer to convert: the scheme leaves a part of each in float: {parts}. "
            "Products on codes need weights and inputs that are quantized."
        )
    _refuse_own_code(what, chosen)
    return chosen


def quantizers_of(module: QuantizedModule) -> dict[str, Quantizer]:
    """Return all quantizers of a layer, by tensor such as ``l0.hidden``."""
    found = module.quantizers.named_modules()
    return {name: q for name, q in found if isinstance(q, Quantizer)}


def parts_in_float(converted: torch.nn.Module) -> list[FloatPart]:
    """Return what of a converted model computes in float, and why."""
    found = []
    for name, module in converted.named_modules():
        if isinstance(module, Quantizer):
            continue
        count = sum(p.numel() for p in module.parameters(recurse=False))
        if count == 0:
            continue
        reason = "has no quantized form"
        if isinstance(module, QuantizedModule):
            reason = "all in float by the scheme"
            if quantizers_of(module):
                reason = f"in float by the scheme: {', '.join(_float_tensors(module))}"
        found.append(FloatPart(name, type(module).__name__, count, reason))
    return found


def _float_tensors(module: QuantizedModule) -> list[str]:
    """Return what of a layer's products the scheme leaves in float."""
    kind = int4_class(module)
    if kind is None:
        return ["everything"]
    return [tensor for tensor, quantizer in kind.needed(module).items() if quantizer is None]


def _refuse_unset(what: str, layers: dict[str, QuantizedModule]) -> None:
    unset = [
        f"{name}.{tensor}".lstrip(".")
        for name, module in layers.items()
        for tensor, quantizer in quantizers_of(module).items()
        if not is_ready(quantizer)
    ]
    if unset:
        raise ValueError(
            f"{what} cannot be converted: {len(unset)} clips of activations were never set: "
            f"{listed(unset)}. Calibrate it (espnet-quant4 calibrate), or train it."
        )


def _refuse_own_code(what: str, chosen: dict[str, torch.nn.Module]) -> None:
    refused = [f"{name or what}: {why}" for name, m in chosen.items() if (why := _own_code(m))]
    if refused:
        raise ValueError(
            f"{what} cannot be converted, since its INT4 form would drop code: {'; '.join(refused)}. "
            "Remove it, put it into a module around the layer, or leave the layer in float by an "
            "override of the scheme."
        )


def _own_code(module: torch.nn.Module) -> str:
    """Return what a user has added to a layer that its INT4 form would lack; empty for nothing."""
    base = next(quantized for quantized in CLASSES if isinstance(module, quantized))
    kinds = type(module).__mro__[: type(module).__mro__.index(base)]
    own = {
        name
        for kind in kinds
        for name, value in vars(kind).items()
        if callable(value) and hasattr(base, name) and not name.startswith("__")
    }
    if own - _HARMLESS:
        names = ", ".join(sorted(own - _HARMLESS))
        return f"{type(module).__name__} defines {names} of its own"
    if module._forward_hooks or module._forward_pre_hooks:
        return f"{type(module).__name__} has a forward hook"
    return ""
