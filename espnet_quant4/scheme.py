"""Quantization schemes: which quantizer sits on which tensor, read from YAML and checked.

A scheme is a mapping::

    lstm:       {weight_ih: SPEC, weight_hh: SPEC, input: SPEC, hidden: SPEC}
    linear:     {weight: SPEC, input: SPEC}
    embedding:  {weight: SPEC}
    overrides:
      - {pattern: "joint_network.*", weight: {bits: 8}}

SPEC is ``{quantizer: NAME, bits: 2..8, granularity: tensor|gate|row, OPTION: VALUE, ...}``, null for
float, or for an input ``{bounded: SPEC, unbounded: SPEC}``. docs/schemes.md explains each key.
"""

from __future__ import annotations

import fnmatch
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from espnet_quant4.specification import (
    SchemeError,
    Specification,
    SpecificationReader,
    alternative,
    copy_of,
    hint,
    with_bound,
)
from espnet_quant4.text_files import TextFileError, read_text

__all__ = ["Scheme", "SchemeError", "apply_scheme", "bundled_names", "with_scheme_content"]

#: Tensors that take a quantizer, by the kind of layer.
TENSORS = {
    "lstm": ("weight_ih", "weight_hh", "input", "hidden"),
    "linear": ("weight", "input"),
    "embedding": ("weight",),
}
#: ``|h| < 1`` in an LSTM, since ``h = o * tanh(c)`` with ``o`` between 0 and 1.
BOUND_OF_STATES = 1.0
BUNDLED = Path(__file__).parent / "conf" / "scheme"

_LAYER_SUFFIX = re.compile(r"\.l\d+$")


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
        self._reader = SpecificationReader(source)
        self._kinds: dict[str, dict[str, Specification | None]] = {}
        self._overrides: list[dict[str, Any]] = []
        if not isinstance(content, Mapping):
            raise self._reader.error("", content, "a mapping with keys", [*TENSORS, "overrides"])
        for key in content:
            self._reader.check_choice("", key, TENSORS, extra=["overrides"])
        for kind, tensors in TENSORS.items():
            given = content.get(kind, {})
            if kind in content and not given and given in (None, {}):
                raise SchemeError(
                    f"{source}: {kind}: nothing stands below it. Name what is quantized, such as "
                    f"{tensors[0]}: {{quantizer: max, bits: 4}}, or leave {kind} out for float."
                )
            self._kinds[kind] = self._read_tensors(kind, given, tensors, kind)
        overrides = content.get("overrides")
        if overrides is not None and (
            isinstance(overrides, (str, Mapping)) or not isinstance(overrides, Sequence)
        ):
            raise self._reader.error(
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
            SchemeError: for a file that is not there or not YAML, for one that holds nothing, and for
                any wrong content.
        """
        if isinstance(scheme, Scheme):
            return scheme
        if scheme is None:
            return cls({}, "no scheme")
        if isinstance(scheme, Mapping):
            return cls(_not_empty(scheme, "inline scheme"))
        if not isinstance(scheme, (str, Path)):
            raise SchemeError(
                f"scheme {scheme!r}: valid are a YAML file, a mapping, null, or a bundled scheme: "
                f"{', '.join(bundled_names())}."
            )
        path = Path(scheme).expanduser()
        if not path.is_file() and (BUNDLED / f"{scheme}.yaml").is_file():
            path = BUNDLED / f"{scheme}.yaml"
        try:
            text = read_text(path)
        except TextFileError as error:
            raise SchemeError(f"scheme {error}") from error
        except OSError as error:
            raise SchemeError(
                f"scheme {str(scheme)!r}: {error.strerror}. Give a YAML file that exists from here "
                f"({Path.cwd()}), or a bundled scheme: {', '.join(bundled_names())}."
                f"{hint(scheme, bundled_names())}"
            ) from error
        try:
            content = _load_yaml(text, str(path))
        except yaml.YAMLError as error:
            raise SchemeError(f"scheme {path}: not valid YAML: {error}") from error
        return cls(_not_empty(content, str(path)), str(path))

    def to_dict(self) -> dict[str, Any]:
        """Return the scheme as plain data that YAML can hold and `load` reads back."""
        plain: dict[str, Any] = {kind: copy_of(tensors) for kind, tensors in self._kinds.items()}
        plain["overrides"] = [copy_of(override) for override in self._overrides]
        return plain

    def resolve(
        self, sites: Iterable[tuple[str, str]], bounds: Mapping[str, float] | None = None
    ) -> dict[str, dict[str, Specification | None]]:
        """Say for every site of a model what is quantized how.

        Args:
            sites: ``(name, kind)``: a layer's name in the model, for LSTMs with the number of the
                layer inside the module behind it (``encoder.enc.0.nbrnn.l0``), and its kind.
            bounds: of the sites whose input's magnitude is bounded by construction, that bound.

        Returns:
            ``{name: {tensor: specification or None}}``, without alternatives.

        Raises:
            SchemeError: where a pattern that is not optional matches no site, or names a tensor that
                none of its sites has, or changes single keys of a tensor that is in float.
        """
        sites, bounds = list(sites), bounds or {}
        resolved = {
            name: {
                tensor: copy_of(alternative(specification, bounds.get(name)))
                for tensor, specification in self._kinds[kind].items()
            }
            for name, kind in sites
        }
        for number, override in enumerate(self._overrides):
            self._apply_override(f"overrides[{number}]", override, sites, bounds, resolved)
        kinds_of = dict(sites)
        for name, tensors in resolved.items():
            for tensor, specification in tensors.items():
                self._reader.check_granularity(name, kinds_of[name], tensor, specification)
                bound = BOUND_OF_STATES if tensor == "hidden" else bounds.get(name)
                tensors[tensor] = with_bound(specification, bound)
        return resolved

    def unmatched(self, sites: Iterable[str]) -> list[str]:
        """Return the patterns of overrides that match none of these sites."""
        names = list(sites)
        patterns = [override["pattern"] for override in self._overrides]
        return [p for p in patterns if not any(_matches(p, name) for name in names)]

    def _apply_override(
        self,
        place: str,
        override: Mapping[str, Any],
        sites: Sequence[tuple[str, str]],
        bounds: Mapping[str, float],
        resolved: dict[str, dict[str, Specification | None]],
    ) -> None:
        matched = [(name, kind) for name, kind in sites if _matches(override["pattern"], name)]
        if not matched and not override.get("optional", False):
            raise self._reader.error(
                f"{place}.pattern", override["pattern"], "patterns that match one of",
                [name for name, _ in sites],
            )  # fmt: skip
        for tensor in _tensors_of(override):
            having = [name for name, kind in matched if tensor in TENSORS[kind]]
            if matched and not having:
                kinds = sorted({kind for _, kind in matched})
                choices = [t for kind in kinds for t in TENSORS[kind]]
                raise self._reader.error(f"{place}.{tensor}", tensor, f"for {kinds}", choices)
            for name in having:
                try:
                    above = alternative(override[tensor], bounds.get(name))
                except KeyError:  # this override is about the other alternative
                    continue
                resolved[name][tensor] = self._reader.join(
                    f"{place}.{tensor}", resolved[name][tensor], above, name
                )

    # ---- reading ----------------------------------------------------------------------------

    def _read_tensors(
        self, place: str, content: Any, tensors: Iterable[str], kind: str
    ) -> dict[str, Specification | None]:
        if not isinstance(content, Mapping):
            raise self._reader.error(place, content, "a mapping with keys", tensors)
        for key in content:
            self._reader.check_choice(place, key, tensors)
        read = {}
        for tensor in tensors:
            read[tensor] = self._reader.read(f"{place}.{tensor}", content.get(tensor), True)
            self._reader.check_granularity(place, kind, tensor, read[tensor])
        return read

    def _read_override(self, place: str, content: Any) -> dict[str, Any]:
        reader = self._reader
        tensors = list(dict.fromkeys(t for names in TENSORS.values() for t in names))
        keys = ["pattern", "optional", *tensors]
        if not isinstance(content, Mapping):
            raise reader.error(place, content, "a mapping with keys", keys)
        for key in content:
            reader.check_choice(place, key, keys)
        if not isinstance(content.get("pattern"), str):
            raise reader.error(
                f"{place}.pattern", content.get("pattern"), "a pattern such as", ["encoder.*"]
            )
        if not isinstance(content.get("optional", False), bool):
            raise reader.error(
                f"{place}.optional", content["optional"], "without quotes:", ["true", "false"]
            )
        if not any(tensor in content for tensor in tensors):
            raise reader.error(place, dict(content), "changes nothing; name one of", tensors)
        override = {k: content[k] for k in ("pattern", "optional") if k in content}
        for tensor in tensors:
            if tensor in content:
                override[tensor] = reader.read(f"{place}.{tensor}", content[tensor], False)
        return override


def apply_scheme(
    model: torch.nn.Module,
    scheme: str | Path | Mapping[str, Any] | Scheme | None,
    prefix: str = "",
) -> dict[str, dict[str, Specification | None]]:
    """Put a scheme's quantizers on all quantized layers of a model.

    Args:
        model: a model with layers of `espnet_quant4.nn`.
        scheme: what `Scheme.load` takes.
        prefix: name of ``model`` within the whole model, where it is a part such as ``encoder``:
            patterns are matched against names in the whole.

    Returns:
        What was put where: ``{site: {tensor: specification or None}}``.

    Raises:
        SchemeError: for a scheme that is not valid or does not fit the model, and for a model that
            has quantizers already, so that no scheme overrules another in silence.
    """
    loaded = Scheme.load(scheme)
    sites: dict[str, tuple[Any, str, str]] = {}
    bounds: dict[str, float] = {}
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
            site = ".".join(part for part in (prefix, name, suffix) if part)
            sites[site] = (module, suffix, kind)
            bound = module.bound_of_input(suffix)
            if bound is not None:
                bounds[site] = bound
    resolved = loaded.resolve(((site, kind) for site, (_, _, kind) in sites.items()), bounds)
    _tell_unmatched(loaded, list(sites))
    for site, (module, suffix, _) in sites.items():
        module.set_quantizers(suffix, resolved[site])
    return resolved


def _tell_unmatched(scheme: Scheme, sites: Sequence[str]) -> None:
    """Log the optional overrides that had no effect; warn where none of all overrides had one."""
    unmatched = scheme.unmatched(sites)
    if not unmatched:
        return
    if len(unmatched) == len(scheme.to_dict()["overrides"]):
        logging.warning(
            f"{scheme.source}: none of its overrides matches a layer of this model: "
            f"{', '.join(unmatched)}. Its layers are named {', '.join(sites)}."
        )
    else:
        logging.info(
            f"{scheme.source}: overrides that match no layer of this model: {', '.join(unmatched)}"
        )


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


def _not_empty(content: Any, source: str) -> Any:
    """Return a scheme's content, unless it says nothing: what quantizes nothing has to say so."""
    if content is None or content == {}:
        raise SchemeError(
            f"scheme {source}: it is empty. Name what is quantized under {', '.join(TENSORS)}; for all "
            "in float give null, or the bundled scheme fp32."
        )
    return content


def _matches(pattern: str, site: str) -> bool:
    module = _LAYER_SUFFIX.sub("", site)
    return fnmatch.fnmatchcase(site, pattern) or fnmatch.fnmatchcase(module, pattern)


def _tensors_of(override: Mapping[str, Any]) -> list[str]:
    return [key for key in override if key not in ("pattern", "optional")]
