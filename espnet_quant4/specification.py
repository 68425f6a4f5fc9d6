"""One tensor's entry in a scheme: what is valid, how two entries join, which of two alternatives holds.

An entry is null (float), ``{quantizer: NAME, bits: 2..8, granularity: tensor|gate|row, OPTION: VALUE}``
or, for a layer's input, a pair ``{bounded: ENTRY, unbounded: ENTRY}``. The layer's place in the model
selects one of the two: what an LSTM or a tanh puts out is bounded by 1, a projection's output is not.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from espnet_quant4.quantizers import registry

Specification = dict[str, Any]

GRANULARITIES = ("tensor", "gate", "row")
#: The two alternatives of an input's entry.
BOUNDED, UNBOUNDED = "bounded", "unbounded"
#: Tensors whose entry may have these alternatives.
WITH_ALTERNATIVES = ("input",)

_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")


class SchemeError(ValueError):
    """A scheme that is not valid; names the key, the file and the valid choices."""


class SpecificationReader:
    """Checks the entries of one scheme.

    Args:
        source: where the scheme comes from, for messages.
    """

    def __init__(self, source: str):
        self.source = source

    def read(self, place: str, content: Any, whole: bool) -> Specification | None:
        """Check one entry, with alternatives or without.

        Args:
            place: its keys in the scheme, such as ``lstm.input``, for messages.
            content: what stands there.
            whole: True where it stands for itself; False in an override, which may leave out the
                quantizer, or one of two alternatives, and is joined with what is below it.

        Raises:
            SchemeError: for anything in it that is not valid.
        """
        if not has_alternatives(content):
            return self._read_plain(place, content, whole)
        if place.rpartition(".")[2] not in WITH_ALTERNATIVES:
            raise self.error(
                place, dict(content), f"{BOUNDED} and {UNBOUNDED} are alternatives of",
                WITH_ALTERNATIVES,
            )  # fmt: skip
        for key in content:
            self.check_choice(place, key, [BOUNDED, UNBOUNDED])
        missing = [key for key in (BOUNDED, UNBOUNDED) if key not in content]
        if whole and missing:
            raise self.error(place, dict(content), "give both", [BOUNDED, UNBOUNDED])
        return {
            key: self._read_plain(f"{place}.{key}", value, whole) for key, value in content.items()
        }

    def _read_plain(self, place: str, content: Any, whole: bool) -> Specification | None:
        if content is None:
            return None
        if not isinstance(content, Mapping):
            raise self.error(place, content, "null, or a mapping with keys", ["quantizer", "bits"])
        specification = {key: plain(value) for key, value in content.items()}
        for key, value in specification.items():
            if key not in ("quantizer", "granularity") and is_number_as_text(value):
                raise SchemeError(
                    f"{self.source}: {place}.{key}: {value!r} is text; write the number "
                    f"{as_yaml(value)} without quotes."
                )
        if "bits" in specification or whole or "quantizer" in specification:
            bits = specification.get("bits")
            if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 8:
                raise self.error(f"{place}.bits", bits, "whole numbers", range(2, 9))
        if "granularity" in specification:
            self.check_choice(f"{place}.granularity", specification["granularity"], GRANULARITIES)
        if "quantizer" not in specification:
            if whole:
                raise self.error(f"{place}.quantizer", None, "valid choices:", registry.names())
            return specification
        self.check_choice(f"{place}.quantizer", specification["quantizer"], registry.names())
        self.check_options(place, specification)
        return specification

    def check_options(self, place: str, specification: Specification) -> None:
        """Raise SchemeError for options that the entry's quantizer does not have or take."""
        name = specification["quantizer"]
        options = ["quantizer", "bits", "granularity", *registry.options_of(name)]
        for key in specification:
            self.check_choice(place, key, options)
        try:
            registry.build(specification, role="weight")
        except (ValueError, TypeError) as error:
            raise SchemeError(f"{self.source}: {place}: {error}") from error

    def join(
        self, place: str, below: Specification | None, above: Specification | None, site: str
    ) -> Specification | None:
        """Return what holds where an override's entry stands above another, both without alternatives.

        Raises:
            SchemeError: for single keys above a tensor in float, or unknown to its quantizer.
        """
        if above is None or "quantizer" in above:
            return copy_of(above)
        if below is None:
            raise SchemeError(
                f"{self.source}: {place}: {site} is in float here, so {above} has nothing to change; "
                "name a quantizer and bits."
            )
        joined = {**below, **above}
        self.check_options(place, joined)
        return joined

    def check_granularity(
        self, place: str, kind: str, tensor: str, specification: Specification | None
    ) -> None:
        """Raise SchemeError for a granularity that a tensor of this kind of layer cannot have."""
        if specification is None:
            return
        if has_alternatives(specification):
            for key, value in specification.items():
                self.check_granularity(f"{place}.{key}", kind, tensor, value)
            return
        if "granularity" not in specification:
            return
        choices = ["tensor"]
        if tensor.startswith("weight"):
            choices = ["tensor", "gate", "row"] if kind == "lstm" else ["tensor", "row"]
        self.check_choice(f"{place}.{tensor}.granularity", specification["granularity"], choices)

    def check_choice(
        self, place: str, value: Any, choices: Iterable[Any], extra: Iterable[Any] = ()
    ) -> None:
        """Raise SchemeError for a value that is none of the choices."""
        choices = [*choices, *extra]
        if value not in choices:
            raise self.error(place, value, "valid choices:", choices)

    def error(self, place: str, value: Any, what: str, choices: Iterable[Any]) -> SchemeError:
        """Return the error that names a place, the value there and what would be valid."""
        listed = [str(choice) for choice in choices]
        at = f"{place}: " if place else ""
        return SchemeError(
            f"{self.source}: {at}{value!r}; {what} {', '.join(listed)}.{hint(value, listed)}"
        )


def has_alternatives(content: Any) -> bool:
    """Whether an entry says what holds for bounded and for unbounded inputs."""
    return isinstance(content, Mapping) and (BOUNDED in content or UNBOUNDED in content)


def alternative(specification: Specification | None, bound: float | None) -> Specification | None:
    """Return the alternative of an entry that holds for an input.

    Args:
        specification: with alternatives or without.
        bound: of the input's magnitude, by construction; None where there is none.

    Raises:
        KeyError: where an override leaves that alternative out.
    """
    if not has_alternatives(specification):
        return specification
    assert specification is not None
    chosen: Specification | None = specification[UNBOUNDED if bound is None else BOUNDED]
    return chosen


def with_bound(specification: Specification | None, bound: float | None) -> Specification | None:
    """Return an entry in which the bound of its tensor stands for the clip that it leaves out."""
    if specification is None or bound is None:
        return specification
    option = registry.get_class(specification["quantizer"]).bound_option
    if option is None or option in specification:
        return specification
    return {**specification, option: bound}


def plain(value: Any) -> Any:
    """Return plain mappings: YAML that comes through omegaconf or argparse may hold subclasses."""
    return {str(k): plain(v) for k, v in value.items()} if isinstance(value, Mapping) else value


def copy_of(value: Any) -> Any:
    """Return a copy of nested mappings."""
    return {k: copy_of(v) for k, v in value.items()} if isinstance(value, Mapping) else value


def is_number_as_text(value: Any) -> bool:
    """Whether a value is a number that YAML took for text: quoted, or ``1e-3``, which wants a dot."""
    return isinstance(value, str) and _NUMBER.fullmatch(value) is not None


def as_yaml(value: str) -> str:
    """Return a number as YAML 1.1 reads it: with a dot before the exponent, and a sign in it."""
    number = float(value)
    return str(int(number)) if number.is_integer() and "." not in value else repr(number)


def hint(value: Any, choices: Iterable[str]) -> str:
    """Return a sentence that names the choice closest to a value, or nothing."""
    close = difflib.get_close_matches(str(value), list(choices), n=1)
    if not close or close[0] == str(value):
        return ""
    return f" Did you mean {close[0]!r}?"
