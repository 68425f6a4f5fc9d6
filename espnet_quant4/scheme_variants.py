"""Schemes that differ from another in one thing: what an ablation is made of.

A file of variants::

    base: tailored
    variants:
      - name: weights_max
        group: weights
        title: clip at the largest weight
        changes: {lstm: {weight_ih: {quantizer: max, bits: 4, granularity: gate}}}
      - {name: w3a4, group: bits, title: W3A4, weight_bits: 3}
      - {name: ptq, group: training, title: calibration alone, arguments: {asr: "--qat false"}}

Each variant has the keys of `Variant`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from espnet_quant4.scheme import TENSORS, Scheme, SchemeError
from espnet_quant4.specification import BOUNDED, UNBOUNDED, has_alternatives
from espnet_quant4.text_files import read_yaml

#: The width of a variant's base that ``weight_bits`` and ``activation_bits`` replace.
REPLACED_BITS = 4
FAMILIES = ("asr", "hybrid")
_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")


@dataclass(frozen=True)
class Variant:
    """One scheme of an ablation.

    Attributes:
        name: of its file and experiment: small letters, digits, ``_``.
        group: what it is compared within, such as ``weights``.
        title: for tables.
        changes: to the base, as `changed` takes them.
        weight_bits: what weights of 4 bits get instead; None for no change.
        activation_bits: likewise, of inputs and hidden states.
        schemes: by family, a scheme file in the place of the base, as seen from the file of variants.
        arguments: by family, further options of the recipe's ``run.sh`` for this variant.
        families: ``asr`` and ``hybrid``, or the one of these that it is for.
    """

    name: str
    group: str
    title: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    weight_bits: int | None = None
    activation_bits: int | None = None
    schemes: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str, str] = field(default_factory=dict)
    families: Sequence[str] = FAMILIES


def read_variants(path: str | Path) -> tuple[str, list[Variant]]:
    """Read a file of variants.

    Returns:
        The base scheme's name or file, and the variants in their order.

    Raises:
        SchemeError: for anything in it that is not valid.
        TextFileError, OSError: where it is missing, no text or no YAML.
    """
    content = read_yaml(path)
    if not isinstance(content, Mapping) or set(content) != {"base", "variants"}:
        raise SchemeError(f"{path}: wanted are the keys base and variants, no others")
    base, entries = content["base"], content["variants"]
    if not isinstance(base, str) or not base:
        raise SchemeError(f"{path}: base {base!r}; valid is the name or the file of a scheme")
    if not isinstance(entries, list) or not entries:
        raise SchemeError(f"{path}: variants {entries!r}; valid is a list with at least one")
    variants: list[Variant] = []
    for number, entry in enumerate(entries):
        place = f"{path}: variants[{number}]"
        _check_variant(entry, place)
        if entry["name"] in [variant.name for variant in variants]:
            raise SchemeError(f"{place}: name {entry['name']!r} stands twice")
        variants.append(Variant(**entry))
    return base, variants


def _check_variant(entry: Any, place: str) -> None:
    known = [item.name for item in fields(Variant)]
    if not isinstance(entry, Mapping):
        raise SchemeError(f"{place}: {entry!r}; valid is a mapping with keys {', '.join(known)}")
    unknown = [key for key in entry if key not in known]
    missing = [key for key in ("name", "group", "title") if not isinstance(entry.get(key), str)]
    if unknown or missing:
        raise SchemeError(
            f"{place}: unknown keys {unknown}, missing {missing}; valid: {', '.join(known)}"
        )
    if not _NAME.fullmatch(entry["name"]):
        raise SchemeError(f"{place}: name {entry['name']!r}: small letters, digits and _")
    for key, value in entry.items():
        valid = _VALID.get(key)
        if valid is not None and not valid[1](value):
            raise SchemeError(f"{place}: {key} {value!r}; valid is {valid[0]}")


def _is_bits(value: Any) -> bool:
    return value is None or (type(value) is int and 1 <= value <= 32)


def _by_family(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        family in FAMILIES and isinstance(text, str) for family, text in value.items()
    )


def _is_change(value: Any) -> bool:
    """Return whether changes have the form of a scheme; what is in it `Scheme` checks."""
    if not isinstance(value, Mapping):
        return False
    return all(
        isinstance(entry, list)
        and all(isinstance(one, Mapping) and isinstance(one.get("pattern"), str) for one in entry)
        if kind == "overrides"
        else isinstance(entry, Mapping)
        for kind, entry in value.items()
    )


# What a key's value must be, in words and as a check.
_VALID: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "changes": (
        "a mapping as in a scheme, such as {lstm: {input: {bits: 8}}}; overrides a list, each with "
        "its pattern",
        _is_change,
    ),
    "weight_bits": ("a whole number of bits", _is_bits),
    "activation_bits": ("a whole number of bits", _is_bits),
    "schemes": ("a scheme file by family, such as {asr: mixed.yaml}", _by_family),
    "arguments": ('options of run.sh by family, such as {asr: "--qat false"}', _by_family),
    "families": (
        f"a list of {' and '.join(FAMILIES)}",
        lambda value: (
            isinstance(value, list) and bool(value) and all(family in FAMILIES for family in value)
        ),
    ),
}


def select(variants: Sequence[Variant], family: str, only: Sequence[str] = ()) -> list[Variant]:
    """Return the variants of a family, in their order.

    Args:
        variants: of `read_variants`.
        family: ``asr`` or ``hybrid``.
        only: names; all where empty.

    Raises:
        SchemeError: for a name that the family has no variant of.
    """
    there = [variant for variant in variants if family in variant.families]
    names = [variant.name for variant in there]
    unknown = sorted(set(only) - set(names))
    if unknown:
        raise SchemeError(f"--only {' '.join(unknown)}: valid: {', '.join(names)}")
    return [variant for variant in there if not only or variant.name in only]


def scheme_of(base: str | Path | Mapping[str, Any], variant: Variant) -> dict[str, Any]:
    """Return the scheme of a variant as plain data.

    Args:
        base: what `Scheme.load` takes.
        variant: what is changed in it.

    Raises:
        SchemeError: for a change that gives no valid scheme.
    """
    scheme = changed(Scheme.load(base).to_dict(), variant.changes)
    scheme = with_bits(scheme, variant.weight_bits, variant.activation_bits)
    try:
        return Scheme.load(scheme).to_dict()
    except SchemeError as error:
        raise SchemeError(f"variant {variant.name}: {error}") from error


def changed(scheme: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a scheme with changes.

    A specification with a quantizer, or null, takes the place of the one that was there; one without
    changes single keys. An override joins the one of the same pattern, or comes behind all others.
    """
    result: dict[str, Any] = copy.deepcopy(dict(scheme))
    for kind, tensors in changes.items():
        if kind == "overrides":
            continue
        target = result.setdefault(kind, {})
        for tensor, specification in tensors.items():
            target[tensor] = _joined(target.get(tensor), specification)
    for override in changes.get("overrides", []):
        overrides = result.setdefault("overrides", [])
        same = [entry for entry in overrides if entry["pattern"] == override["pattern"]]
        if not same:
            overrides.append(copy.deepcopy(dict(override)))
            continue
        for key, value in override.items():
            is_tensor = any(key in tensors for tensors in TENSORS.values())
            same[-1][key] = _joined(same[-1].get(key), value) if is_tensor else value
    return result


def with_bits(
    scheme: Mapping[str, Any], weights: int | None = None, activations: int | None = None
) -> dict[str, Any]:
    """Return a scheme with other widths where it has 4 bits; None leaves them."""
    result: dict[str, Any] = copy.deepcopy(dict(scheme))
    entries = [result.get(kind, {}) for kind in TENSORS] + list(result.get("overrides", []))
    for entry in entries:
        for tensor, specification in entry.items():
            bits = weights if tensor.startswith("weight") else activations
            for plain in _alternatives_of(specification):
                if plain.get("bits") == REPLACED_BITS:
                    plain["bits"] = REPLACED_BITS if bits is None else bits
    return result


def _alternatives_of(specification: Any) -> list[dict[str, Any]]:
    """Return the entries that an entry consists of: itself, or its alternatives; those not in float."""
    entries = specification.values() if has_alternatives(specification) else [specification]
    return [entry for entry in entries if isinstance(entry, dict)]


def _joined(below: Any, above: Any) -> Any:
    if not isinstance(above, Mapping) or "quantizer" in above or not isinstance(below, Mapping):
        return copy.deepcopy(above)
    if has_alternatives(below) or has_alternatives(above):
        below, above = (
            entry if has_alternatives(entry) else dict.fromkeys((BOUNDED, UNBOUNDED), entry)
            for entry in (below, above)
        )
        return {**below, **{key: _joined(below.get(key), above[key]) for key in above}}
    return {**below, **above}
