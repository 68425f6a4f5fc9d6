"""From a trained quantized model to one that computes on codes."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch

from espnet_quant4.int4.embedding import Int4Embedding
from espnet_quant4.int4.int4_module import Description, Int4Module
from espnet_quant4.int4.linear import Int4Linear
from espnet_quant4.int4.lstm import Int4LSTM
from espnet_quant4.nn import QuantEmbedding, QuantLinear, QuantLSTM
from espnet_quant4.nn.quantized_module import QuantizedModule

Int4Class = type[Int4LSTM] | type[Int4Linear] | type[Int4Embedding]

CLASSES: dict[type[QuantizedModule], Int4Class] = {
    QuantLSTM: Int4LSTM,
    QuantLinear: Int4Linear,
    QuantEmbedding: Int4Embedding,
}


def int4_class(module: torch.nn.Module) -> Int4Class | None:
    """Return the INT4 class of a quantized module; None for any other module."""
    for quantized, found in CLASSES.items():
        if isinstance(module, quantized):
            return found
    return None


def convert_module(module: torch.nn.Module) -> Int4Module | None:
    """Return the INT4 form of one module; None where it has none.

    It has one if all that its products read is quantized, with clips that are set.
    """
    found = int4_class(module)
    if found is None or not found.can_convert(module):
        return None
    return found.from_quantized(module)


def convert(model: torch.nn.Module) -> torch.nn.Module:
    """Return a copy of a model, in evaluation mode and on the CPU, that computes on codes.

    Every quantized LSTM, linear layer and embedding is replaced by its INT4 form; a layer that the
    scheme leaves in float, in whole or in part, stays as it is. The copy's ``state_dict`` is all that
    a file has to hold.

    Args:
        model: a trained model with layers of `espnet_quant4.nn`, or one such layer.

    Raises:
        ValueError: where nothing can be converted.
    """
    alone = convert_module(model)
    if alone is not None:
        return alone
    # Weights need not be copied only to be thrown away: they are shared until they are replaced.
    memo = {id(t): t for t in (*model.parameters(), *model.buffers())}
    copied = copy.deepcopy(model, memo).eval()
    count = 0
    for parent, name, child in list(_children(copied)):
        built = convert_module(child)
        if built is not None:
            setattr(parent, name, built)
            count += 1
    if count == 0:
        raise ValueError(
            f"{type(model).__name__} has no layer to convert: none is quantized with all its clips "
            "set. Train it with a scheme (model_conf: scheme: tailored), or calibrate it first."
        )
    return copied.cpu()


def convert_structure(
    model: torch.nn.Module, descriptions: Mapping[str, Description]
) -> torch.nn.Module:
    """Put empty INT4 modules into a model, in place, for a file's tensors to be loaded into.

    Args:
        model: built from the configuration that the file holds; its weights are not read.
        descriptions: what `describe` returned for the model that was saved.

    Returns:
        The model, in evaluation mode. Load with ``load_state_dict(..., assign=True)``.

    Raises:
        ValueError: for a description of a tensor that the model has no place for.
    """
    grouped: dict[str, dict[str, Description]] = {}
    for name, description in descriptions.items():
        owner, _, tensor = name.rpartition(".")
        grouped.setdefault(owner, {})[tensor] = dict(description)
    places = {prefix: (parent, name, child) for prefix, parent, name, child in _named(model)}
    for owner, found in grouped.items():
        parent, name, child = places.get(owner, (None, "", None))
        kind = None if child is None else int4_class(child)
        if parent is None or kind is None:
            raise ValueError(
                f"{owner}: described as quantized, but {type(model).__name__} has no quantized layer "
                "of that name. The file and its configuration do not belong together."
            )
        setattr(parent, name, kind.empty_like(child, found))
    return model.eval()


def describe(model: torch.nn.Module) -> dict[str, Description]:
    """Return what is quantized how in a converted model, by names of its ``state_dict``.

    A weight has ``role: weight, bits, shape, groups``, an activation's clip ``role: activation,
    bits``.
    """
    found = {}
    for prefix, module in model.named_modules():
        if isinstance(module, Int4Module):
            for name, description in module.descriptions.items():
                found[f"{prefix}.{name}" if prefix else name] = dict(description)
    return found


def _named(
    model: torch.nn.Module,
) -> Iterator[tuple[str, torch.nn.Module, str, torch.nn.Module]]:
    for prefix, parent in list(model.named_modules()):
        for name, child in parent.named_children():
            yield f"{prefix}.{name}" if prefix else name, parent, name, child


def _children(
    model: torch.nn.Module,
) -> Iterator[tuple[torch.nn.Module, str, torch.nn.Module]]:
    for _, parent, name, child in _named(model):
        yield parent, name, child
