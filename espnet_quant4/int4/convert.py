"""From a trained quantized model to one that computes on codes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping

import torch

from espnet_quant4.int4.conversion_plan import Int4Class, int4_class, plan
from espnet_quant4.int4.int4_module import Description, Int4Module, is_ready


def convert_module(module: torch.nn.Module) -> Int4Module | None:
    """Return the INT4 form of one module; None where it has none.

    It has one if all that its products read is quantized, with clips that are set.
    """
    found = int4_class(module)
    if found is None or not all(
        q is not None and is_ready(q) for q in found.needed(module).values()
    ):
        return None
    return found.from_quantized(module)


def convert(model: torch.nn.Module) -> torch.nn.Module:
    """Return a copy of a model, in evaluation mode and on the CPU, that computes on codes.

    Every quantized LSTM, linear layer and embedding is replaced by its INT4 form. A layer that the
    scheme leaves in float, in whole or in part, stays as it is, and `parts_in_float` lists it. The
    copy shares no tensor with the model; what is shared within the model is shared within the copy,
    codes too where they are equal. The copy's ``state_dict`` is all that a file has to hold.

    Args:
        model: a trained model with layers of `espnet_quant4.nn`, or one such layer.

    Raises:
        ValueError: for a model that is converted already or has no scheme, where the scheme leaves
            nothing to convert, for quantized layers whose clips were never set, and for layers with
            code of their own, which conversion would drop.
    """
    chosen = plan(model)
    copied, sources = _copy(model, list(chosen.values()))
    built = {id(module): _from(module) for module in sources}
    _tie([(module, built[id(module)]) for module in sources])
    converted = _replaced(copied, lambda child: built.get(id(child)))
    return converted.eval().cpu()


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
    modules = dict(model.named_modules(remove_duplicate=False))
    built: dict[int, Int4Module] = {}
    for owner, found in grouped.items():
        child = modules.get(owner)
        kind = None if child is None else int4_class(child)
        if child is None or kind is None:
            raise ValueError(
                f"{owner}: described as quantized, but {type(model).__name__} has no quantized layer "
                "of that name. The file and its configuration do not belong together."
            )
        try:
            built.setdefault(id(child), kind.empty_like(child, found))
        except ValueError as error:
            raise ValueError(
                f"{owner}: {error}. The file and its configuration do not belong together."
            ) from error
    return _replaced(model, lambda child: built.get(id(child))).eval()


def describe(model: torch.nn.Module) -> dict[str, Description]:
    """Return what is quantized how in a converted model, by names of its ``state_dict``.

    A weight has ``role: weight, bits, shape, groups``, an activation's clip ``role: activation,
    bits``. A weight that another layer's weight of the float model is too has ``tied: True``; where the
    codes are the same tensor as well, ``tied_to`` is the other's name.
    """
    found: dict[str, Description] = {}
    first: dict[int, str] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        if not isinstance(module, Int4Module):
            continue
        for name, description in module.descriptions.items():
            full = f"{prefix}.{name}" if prefix else name
            found[full] = dict(description)
            # By address: what was loaded from a state_dict has tensors of its own over one memory.
            at = getattr(module, name).data_ptr()
            if at and first.setdefault(at, full) != full:
                found[full]["tied_to"] = first[at]
    return found


def _from(module: torch.nn.Module) -> Int4Module:
    kind: Int4Class | None = int4_class(module)
    assert kind is not None
    return kind.from_quantized(module)


def _copy(
    model: torch.nn.Module, chosen: list[torch.nn.Module]
) -> tuple[torch.nn.Module, list[torch.nn.Module]]:
    """Copy a model, except for weights that only the chosen layers have, which are about to go.

    Returns:
        The copy, and the chosen layers in it.
    """
    going = {id(module) for module in chosen}
    kept = {
        id(tensor)
        for module in model.modules()
        if id(module) not in going
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))
    }
    memo = {
        id(tensor): tensor
        for module in chosen
        for tensor in module.parameters(recurse=False)
        if id(tensor) not in kept
    }
    copied = copy.deepcopy(model, memo)
    return copied, [memo[id(module)] for module in chosen]


def _tie(pairs: list[tuple[torch.nn.Module, Int4Module]]) -> None:
    """Let layers that share a weight share its codes, where these are equal."""
    first: dict[int, tuple[Int4Module, str]] = {}
    for source, built in pairs:
        for name, description in built.descriptions.items():
            weight = source._parameters.get(name)
            if weight is None or description["role"] != "weight":
                continue
            other, at = first.setdefault(id(weight), (built, name))
            if (other, at) == (built, name):
                continue
            description["tied"] = True
            same = all(
                description[key] == other.descriptions[at][key] for key in ("bits", "groups")
            ) and all(
                torch.equal(getattr(built, f"{name}{part}"), getattr(other, f"{at}{part}"))
                for part in ("", "_scale")
            )
            if same:
                for part in ("", "_scale"):
                    setattr(built, f"{name}{part}", getattr(other, f"{at}{part}"))


def _replaced(
    model: torch.nn.Module, find: Callable[[torch.nn.Module], torch.nn.Module | None]
) -> torch.nn.Module:
    """Replace modules of a model in place, wherever they stand; returns the model."""
    root = find(model)
    if root is not None:
        return root
    for parent, name, child in list(_places(model)):
        new = find(child)
        if new is not None:
            setattr(parent, name, new)
    return model


def _places(model: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, str, torch.nn.Module]]:
    for parent in model.modules():
        # Not named_children(), which gives a module that stands under two names only once.
        for name, child in parent._modules.items():
            if child is not None:
                yield parent, name, child
