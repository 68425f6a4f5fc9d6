"""Quantization schemes: which quantizer sits on which tensor, read from YAML and checked.

A scheme is a mapping::

    lstm:       {weight_ih: SPEC, weight_hh: SPEC, input: SPEC, hidden: SPEC}
    linear:     {weight: SPEC, input: SPEC}
    embedding:  {weight: SPEC}
    overrides:
      - {pattern: "joint_network.*", weight: {bits: 8}}

SPEC is ``{quantizer: NAME, bits: 2..8, granularity: tensor|gate|row, OPTION: VALUE, ...}`` or null
for float. docs/schemes.md explains each key.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from espnet_quant4.quantizers import registry

Specification = dict[str, Any]

#: Tensors that take a quantizer, by the kind of layer.
TENSORS = {
    "lstm": ("weight_ih", "weight_hh", "input", "hidden"),
    "linear": ("weight", "input"),
    "embedding": ("weight",),
}
GRANULARITIES = ("tensor", "gate", "row")
BUNDLED = Path(__file__).parent / "conf" / "scheme"

_LAYER_SUFFIX = re.compile(r"\.l\d+$")


class SchemeError(ValueError):
    """A scheme that is not valid; names the key, the file and the valid choices."""


def bundled_names() -> list[str]:
    """Return the names of the schemes that come with the package."""
    return sorted(path.stem for path in BUNDLED.glob("*.yaml"))


class Scheme:
    """A checked scheme. Made by `Scheme.load`.

    Args:
        content: a scheme's mapping.
        source: where it comes from, for messages.

    Raises:
        SchemeError: for anything in it that is not valid.
    """

    def __init__(self, content: Mapping[str, Any], source: str = "inline scheme"):
        self.source = source
        self._kinds: dict[str, dict[str, Specification | None]] = {}
        self._overrides: list[dict[str, Any]] = []
        if not isinstance(content, Mapping):
            raise self._error("", content, "a mapping with keys", [*TENSORS, "overrides"])
        for key in content:
            if key != "overrides":
                self._check_choice("", key, TENSORS, extra=["overrides"])
        for kind, tensors in TENSORS.items():
            given = content.get(kind)
            self._kinds[kind] = self._read_tensors(
                kind, {} if given is None else given, tensors, kind
            )
        overrides = content.get("overrides")
        if overrides is not None and (
            isinstance(overrides, (str, Mapping)) or not isinstance(overrides, Sequence)
        ):
            raise self._error(
                "overrides", overrides, "a list of mappings such as", ['- {pattern: "encoder.*"}']
            )
        for number, override in enumerate(overrides or []):
            self._overrides.append(self._read_override(f"overrides[{number}]", override))

    @classmethod
    def load(cls, scheme: str | Path | Mapping[str, Any] | Scheme | None) -> Scheme:
        """Read and check a scheme.

        Args:
            scheme: a YAML file, the name of a bundled scheme (``tailored``), a mapping, a scheme, or
                None for all in float.

        Raises:
            SchemeError: for a file that is not there or not YAML, and for any wrong content.
        """
        if isinstance(scheme, Scheme):
            return scheme
        if scheme is None:
            return cls({}, "no scheme")
        if isinstance(scheme, Mapping):
            return cls(scheme)
        if not isinstance(scheme, (str, Path)):
            raise SchemeError(
                f"scheme {scheme!r}: valid are a YAML file, a mapping, null, or a bundled scheme: "
                f"{', '.join(bundled_names())}."
            )
        path = Path(scheme)
        if not path.is_file() and (BUNDLED / f"{scheme}.yaml").is_file():
            path = BUNDLED / f"{scheme}.yaml"
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise SchemeError(f"scheme {path}: not a text file in UTF-8: {error}") from error
        except OSError as error:
            raise SchemeError(
                f"scheme {str(scheme)!r}: {error.strerror}. Give a YAML file that exists from here "
                f"({Path.cwd()}), or a bundled scheme: {', '.join(bundled_names())}."
                f"{_hint(scheme, bundled_names())}"
            ) from error
        try:
            content = _load_yaml(text, str(path))
        except yaml.YAMLError as error:
            raise SchemeError(f"scheme {path}: not valid YAML: {error}") from error
        return cls({} if content is None else content, str(path))

    def to_dict(self) -> dict[str, Any]:
        """Return the scheme as plain data that YAML can hold and `load` reads back."""
        plain: dict[str, Any] = {kind: _copy(tensors) for kind, tensors in self._kinds.items()}
        plain["overrides"] = [_copy(override) for override in self._overrides]
        return plain

    def resolve(
        self, sites: Iterable[tuple[str, str]]
    ) -> dict[str, dict[str, Specification | None]]:
        """Say for every site of a model what is quantized how.

        Args:
            sites: ``(name, kind)``: a layer's name in the model, for LSTMs with the number of the
                layer inside the module behind it (``encoder.enc.0.nbrnn.l0``), and its kind.

        Returns:
            ``{name: {tensor: specification or None}}``.

        Raises:
            SchemeError: where a pattern that is not optional matches no site, or names a tensor that
                none of its sites has, or changes single keys of a tensor that is in float.
        """
        sites = list(sites)
        resolved = {name: _copy(self._kinds[kind]) for name, kind in sites}
        for number, override in enumerate(self._overrides):
            place = f"overrides[{number}]"
            matched = [(n, kind) for n, kind in sites if _matches(override["pattern"], n)]
            if not matched and not override.get("optional", False):
                raise self._error(
                    f"{place}.pattern", override["pattern"], "patterns that match one of",
                    [name for name, _ in sites],
                )  # fmt: skip
            for tensor in _tensors_of(override):
                having = [name for name, kind in matched if tensor in TENSORS[kind]]
                if matched and not having:
                    kinds = sorted({kind for _, kind in matched})
                    choices = [t for kind in kinds for t in TENSORS[kind]]
                    raise self._error(f"{place}.{tensor}", tensor, f"for {kinds}", choices)
                for name in having:
                    resolved[name][tensor] = self._merge(
                        f"{place}.{tensor}", resolved[name][tensor], override[tensor], name
                    )
        kinds_of = dict(sites)
        for name, tensors in resolved.items():
            for tensor, specification in tensors.items():
                self._check_granularity(name, kinds_of[name], tensor, specification)
        return resolved

    # ---- reading ----------------------------------------------------------------------------

    def _read_tensors(
        self, place: str, content: Any, tensors: Iterable[str], kind: str
    ) -> dict[str, Specification | None]:
        if not isinstance(content, Mapping):
            raise self._error(place, content, "a mapping with keys", tensors)
        for key in content:
            self._check_choice(place, key, tensors)
        read = {}
        for tensor in tensors:
            read[tensor] = self._read_specification(f"{place}.{tensor}", content.get(tensor), True)
            self._check_granularity(place, kind, tensor, read[tensor])
        return read

    def _read_override(self, place: str, content: Any) -> dict[str, Any]:
        tensors = list(dict.fromkeys(t for names in TENSORS.values() for t in names))
        keys = ["pattern", "optional", *tensors]
        if not isinstance(content, Mapping):
            raise self._error(place, content, "a mapping with keys", keys)
        for key in content:
            self._check_choice(place, key, keys)
        if not isinstance(content.get("pattern"), str):
            raise self._error(
                f"{place}.pattern", content.get("pattern"), "a pattern such as", ["encoder.*"]
            )
        if not isinstance(content.get("optional", False), bool):
            raise self._error(f"{place}.optional", content["optional"], "valid:", ["true", "false"])
        if not any(tensor in content for tensor in tensors):
            raise self._error(place, dict(content), "changes nothing; name one of", tensors)
        override = {k: content[k] for k in ("pattern", "optional") if k in content}
        for tensor in tensors:
            if tensor in content:
                override[tensor] = self._read_specification(
                    f"{place}.{tensor}", content[tensor], False
                )
        return override

    def _read_specification(self, place: str, content: Any, whole: bool) -> Specification | None:
        """Check one SPEC; one in an override may leave out the quantizer and be merged later."""
        if content is None:
            return None
        if not isinstance(content, Mapping):
            raise self._error(place, content, "null, or a mapping with keys", ["quantizer", "bits"])
        specification = {key: _plain(value) for key, value in content.items()}
        if "bits" in specification or whole or "quantizer" in specification:
            bits = specification.get("bits")
            if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 8:
                raise self._error(f"{place}.bits", bits, "whole numbers", range(2, 9))
        if "granularity" in specification:
            self._check_choice(f"{place}.granularity", specification["granularity"], GRANULARITIES)
        if "quantizer" not in specification:
            if whole:
                raise self._error(f"{place}.quantizer", None, "valid choices:", registry.names())
            return specification
        self._check_choice(f"{place}.quantizer", specification["quantizer"], registry.names())
        self._check_options(place, specification)
        return specification

    def _check_options(self, place: str, specification: Specification) -> None:
        name = specification["quantizer"]
        options = ["quantizer", "bits", "granularity", *registry.options_of(name)]
        for key in specification:
            self._check_choice(place, key, options)
        try:
            registry.build(specification, role="weight")
        except (ValueError, TypeError) as error:
            raise SchemeError(f"{self.source}: {place}: {error}") from error

    def _merge(
        self, place: str, below: Specification | None, above: Specification | None, site: str
    ) -> Specification | None:
        if above is None or "quantizer" in above:
            return _copy(above)
        if below is None:
            raise SchemeError(
                f"{self.source}: {place}: {site} is in float here, so {above} has nothing to change; "
                "name a quantizer and bits."
            )
        merged = {**below, **above}
        self._check_options(place, merged)
        return merged

    def _check_granularity(
        self, place: str, kind: str, tensor: str, specification: Specification | None
    ) -> None:
        if specification is None or "granularity" not in specification:
            return
        choices = ["tensor"]
        if tensor.startswith("weight"):
            choices = ["tensor", "gate", "row"] if kind == "lstm" else ["tensor", "row"]
        self._check_choice(f"{place}.{tensor}.granularity", specification["granularity"], choices)

    def _check_choice(
        self, place: str, value: Any, choices: Iterable[Any], extra: Iterable[Any] = ()
    ) -> None:
        choices = [*choices, *extra]
        if value not in choices:
            raise self._error(place, value, "valid choices:", choices)

    def _error(self, place: str, value: Any, what: str, choices: Iterable[Any]) -> SchemeError:
        listed = [str(choice) for choice in choices]
        at = f"{place}: " if place else ""
        return SchemeError(
            f"{self.source}: {at}{value!r}; {what} {', '.join(listed)}.{_hint(value, listed)}"
        )


def apply_scheme(
    model: torch.nn.Module, scheme: str | Path | Mapping[str, Any] | Scheme | None
) -> dict[str, dict[str, Specification | None]]:
    """Put a scheme's quantizers on all quantized layers of a model.

    Args:
        model: a model with layers of `espnet_quant4.nn`.
        scheme: what `Scheme.load` takes.

    Returns:
        What was put where: ``{site: {tensor: specification or None}}``.

    Raises:
        SchemeError: for a scheme that is not valid or does not fit the model, and for a model that
            has quantizers already, so that no scheme overrules another in silence.
    """
    loaded = Scheme.load(scheme)
    sites: dict[str, tuple[Any, str, str]] = {}
    for name, module in model.named_modules():
        if not hasattr(module, "quant_sites"):
            continue
        if any(bool(present) for present in module.quantizers.values()):
            raise SchemeError(
                f"{loaded.source}: {name or type(module).__name__} is quantized already, by a scheme "
                "of its own. Give one scheme: in model_conf for the whole model, or in encoder_conf "
                "and decoder_conf for the parts."
            )
        for suffix, kind in module.quant_sites():
            site = ".".join(part for part in (name, suffix) if part)
            sites[site] = (module, suffix, kind)
    resolved = loaded.resolve((site, kind) for site, (_, _, kind) in sites.items())
    for site, (module, suffix, _) in sites.items():
        module.set_quantizers(suffix, resolved[site])
    return resolved


def with_scheme_content(conf: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return options in which the scheme's name is replaced by its content, as ``config.yaml`` needs.

    Args:
        conf: such as ``model_conf``. Not changed: it may be a parser's default or the caller's own.
        key: its name, for messages.

    Raises:
        SchemeError: for a scheme that is not valid.
    """
    if conf.get("scheme") is None:
        return dict(conf)
    try:
        return {**conf, "scheme": Scheme.load(conf["scheme"]).to_dict()}
    except SchemeError as error:
        raise SchemeError(f"{key}: scheme: {error}") from error


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader, which refuses a key given twice instead of keeping the last."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.composer.ComposerError(
                        "in a mapping", node.start_mark,
                        f"the key {key.value!r} stands twice", key.start_mark,
                    )  # fmt: skip
                seen.add(key.value)
        return node


def _load_yaml(text: str, name: str) -> Any:
    loader = _UniqueKeyLoader(text)
    loader.name = name  # for messages
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _hint(value: Any, choices: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(value), list(choices), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _matches(pattern: str, site: str) -> bool:
    module = _LAYER_SUFFIX.sub("", site)
    return fnmatch.fnmatchcase(site, pattern) or fnmatch.fnmatchcase(module, pattern)


def _tensors_of(override: Mapping[str, Any]) -> list[str]:
    return [key for key in override if key not in ("pattern", "optional")]


def _plain(value: Any) -> Any:
    # YAML that comes through omegaconf or argparse may hold subclasses.
    return {str(k): _plain(v) for k, v in value.items()} if isinstance(value, Mapping) else value


def _copy(value: Any) -> Any:
    return {k: _copy(v) for k, v in value.items()} if isinstance(value, Mapping) else value
