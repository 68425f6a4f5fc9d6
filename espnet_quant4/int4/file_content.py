"""What the metadata and tensors of an ``.int4`` file must be, checked before anything is built of them.

A checksum says that a file is as it was written, not that what wrote it was right.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from espnet_quant4.int4.file_format import Int4FileError
from espnet_quant4.int4.int4_module import Description
from espnet_quant4.int4.packing import all_codes_valid

# Sizes of the frontend beyond this are no sizes, and would fill the memory before anything complains.
LARGEST_FRONTEND_SIZE = 2**20


Kind = type[dict[str, Any]] | type[list[str]]


def read_json_entry(path: Path, metadata: Mapping[str, str], key: str, kind: Kind) -> Any:
    """Return one entry of the metadata.

    Args:
        path: of the file, for messages.
        metadata: of the file.
        key: of the entry.
        kind: ``dict`` or ``list``; an entry of a list is a string.

    Raises:
        Int4FileError: where it is not there, no JSON, or of another kind.
    """
    if key not in metadata:
        raise broken(path, f"its metadata lack {key!r}")
    try:
        found = json.loads(metadata[key])
    except (ValueError, RecursionError) as error:
        raise broken(path, f"its metadata {key!r} are no JSON ({error})") from error
    if not isinstance(found, kind):
        raise broken(path, f"its metadata {key!r} are a {type(found).__name__}, no {kind.__name__}")
    if kind is list and not all(isinstance(entry, str) for entry in found):
        raise broken(path, f"its metadata {key!r} hold something else than names")
    return found


def widen_halves(path: Path, tensors: dict[str, torch.Tensor], halves: list[str]) -> None:
    """Bring tensors that are stored in half precision back to float32, in place."""
    for name in halves:
        if name not in tensors:
            raise broken(path, f"its metadata 'halves' name {name!r}, which is no tensor of it")
        if tensors[name].dtype != torch.float16:
            raise broken(path, f"{name} is {tensors[name].dtype}, and 'halves' call it float16")
        tensors[name] = tensors[name].float()


def check_config(path: Path, config: Mapping[str, Any]) -> None:
    """Check what of a configuration would not be found by building a model of it."""
    for key, value in config.items():
        if key.endswith("_conf") and not (value is None or isinstance(value, dict)):
            raise broken(path, f"its configuration's {key} is {value!r}, no mapping")
    for key, value in (config.get("frontend_conf") or {}).items():
        if isinstance(value, int) and value > LARGEST_FRONTEND_SIZE:
            raise broken(path, f"its configuration's frontend_conf has {key}: {value:.3g}")
    tokens = config.get("token_list")
    if tokens is not None and not (
        isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)
    ):
        raise broken(path, "its configuration's token_list is no list of strings")


def check_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], descriptions: Mapping[str, Description]
) -> None:
    """Check every tensor, and that the quantized ones are as they are described."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and bool(tensor.isnan().any()):
            raise broken(path, f"{name} holds NaN")
    for name, description in descriptions.items():
        wrong = _wrong_description(description)
        if wrong:
            raise broken(path, f"{name}: {wrong}")
    tied = tied_tensors(descriptions)
    every = {**tensors, **{name: tensors[at] for name, at in tied.items() if at in tensors}}
    for name, description in descriptions.items():
        wrong = _wrong_content(name, description, every)
        if wrong:
            raise broken(path, f"{name}: {wrong}")


def tied_tensors(descriptions: Mapping[str, Description]) -> dict[str, str]:
    """Return the tensors that are other tensors too, and which."""
    found = {}
    for name, description in descriptions.items():
        if "tied_to" in description:
            found[name] = description["tied_to"]
            if description["role"] == "weight":
                found[f"{name}_scale"] = f"{description['tied_to']}_scale"
    return found


def _wrong_description(description: Any) -> str | None:
    if not isinstance(description, dict):
        return f"its description is {description!r}, no mapping"
    role, bits = description.get("role"), description.get("bits")
    if role not in ("weight", "activation"):
        return f"its role is {role!r}; valid: weight, activation"
    if type(bits) is not int or not 2 <= bits <= 8:
        return f"its bits are {bits!r}; valid: 2 to 8"
    if not isinstance(description.get("tied_to", ""), str):
        return f"it is tied to {description['tied_to']!r}; valid: the name of a tensor"
    if role == "activation":
        return None
    shape, groups = description.get("shape"), description.get("groups")
    if not (isinstance(shape, list) and len(shape) == 2 and all(_is_size(s) for s in shape)):
        return f"its shape is {shape!r}; valid: [rows, columns]"
    if not _is_size(groups) or shape[0] % groups:
        return f"its groups are {groups!r}; valid: what divides {shape[0]} rows"
    return None


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 1


def _wrong_content(
    name: str, description: Description, tensors: Mapping[str, torch.Tensor]
) -> str | None:
    """Return how the tensors differ from a description that is valid in itself; None if they fit."""
    if description["role"] == "activation":
        return _wrong_numbers(name, tensors, 1)
    (rows, columns), bits = description["shape"], description["bits"]
    width = (columns * bits + 7) // 8
    wrong = _wrong_form(name, tensors, torch.uint8, (rows, width))
    wrong = wrong or _wrong_numbers(f"{name}_scale", tensors, description["groups"])
    if wrong is None and not all_codes_valid(tensors[name], bits, columns):
        return f"it holds the code {-(2 ** (bits - 1))}; valid are those from {1 - 2 ** (bits - 1)}"
    return wrong


def _wrong_numbers(name: str, tensors: Mapping[str, torch.Tensor], count: int) -> str | None:
    wrong = _wrong_form(name, tensors, torch.float32, (count,))
    if wrong is None and not bool(((tensors[name] > 0) & tensors[name].isfinite()).all()):
        return f"{name} is not finite and above 0 everywhere"
    return wrong


def _wrong_form(
    name: str, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype, shape: tuple[int, ...]
) -> str | None:
    found = tensors.get(name)
    if found is None:
        return f"there is no tensor {name}"
    if found.dtype != dtype or tuple(found.shape) != shape:
        return (
            f"{name} is {found.dtype} of shape {tuple(found.shape)}, and described as {dtype} of "
            f"shape {shape}"
        )
    return None


def broken(path: Path, what: str) -> Int4FileError:
    """Return the error for a file whose content does not fit together."""
    return Int4FileError(
        f"{path}: {what}. The file is whole but was not written right; convert the model again."
    )
