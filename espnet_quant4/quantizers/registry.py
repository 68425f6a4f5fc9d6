"""Quantizers by name.

A new one is a subclass of `Quantizer` with the decorator::

    from espnet_quant4.quantizers import Quantizer, register

    @register("mine")
    class MyQuantizer(Quantizer):
        ...
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from espnet_quant4.quantizers.base import Quantizer

Class = TypeVar("Class", bound=type[Quantizer])

_CLASSES: dict[str, type[Quantizer]] = {}

# Arguments that come from the scheme's own keys and the tensor, not from a quantizer's options.
_COMMON = {"self", "bits", "groups", "role"}


def register(name: str) -> Callable[[Class], Class]:
    """Return a class decorator that makes a quantizer known to schemes as ``name``.

    Raises:
        TypeError: where the class is no subclass of `Quantizer`, or the name no string.
        ValueError: where the name is taken by another class.
    """

    if not (isinstance(name, str) and name):
        raise TypeError(f'register({name!r}): give a name: @register("my_quantizer")')

    def decorate(cls: Class) -> Class:
        if not (isinstance(cls, type) and issubclass(cls, Quantizer)):
            raise TypeError(
                f"register({name!r}): {cls!r} is not a subclass of espnet_quant4.quantizers.Quantizer"
            )
        known = _CLASSES.get(name)
        # The same class comes again when its module is reloaded.
        if known is not None and _place(known) != _place(cls):
            raise ValueError(
                f"register({name!r}): the name is taken by {known.__module__}.{known.__qualname__}; "
                f"names in use: {', '.join(names())}"
            )
        _CLASSES[name] = cls
        return cls

    return decorate


def _place(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def names() -> list[str]:
    """Return all registered names, sorted."""
    return sorted(_CLASSES)


def get_class(name: str) -> type[Quantizer]:
    """Return the quantizer class of that name.

    Raises:
        ValueError: for an unknown name; says which there are.
    """
    if name not in _CLASSES:
        close = difflib.get_close_matches(str(name), names(), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"no quantizer {name!r}; valid choices: {', '.join(names())}.{hint}")
    return _CLASSES[name]


def options_of(name: str) -> list[str]:
    """Return the options that the quantizer takes beside bits and granularity."""
    options: dict[str, None] = {}
    for cls in get_class(name).__mro__:
        if "__init__" not in vars(cls):
            continue
        signature = inspect.signature(vars(cls)["__init__"])
        parameters = signature.parameters.values()
        options |= {
            p.name: None
            for p in parameters
            if p.name not in _COMMON and p.kind is not inspect.Parameter.VAR_KEYWORD
        }
        # A constructor that does not hand on keywords hides those of its bases.
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            break
    return list(options)


def describe(quantizer: Quantizer) -> str:
    """Return all that training and results depend on, such as ``pact+, 4 bits, 1 clip``."""
    clips = "1 clip" if quantizer.groups == 1 else f"{quantizer.groups} clips"
    settings = [f"{name} {value:g}" for name, value in quantizer.settings.items()]
    return ", ".join([name_of(quantizer), f"{quantizer.bits} bits", clips, *settings])


def name_of(quantizer: Quantizer) -> str:
    """Return a quantizer's name in schemes; its class's where that is not registered."""
    found = (name for name, cls in _CLASSES.items() if cls is type(quantizer))
    return next(found, type(quantizer).__name__)


def build(specification: Mapping[str, Any], role: str, groups: int = 1) -> Quantizer:
    """Build a quantizer from an entry of a resolved scheme.

    Args:
        specification: ``{"quantizer": name, "bits": b, "granularity": ..., option: value, ...}``;
            ``granularity`` is the caller's and passed over.
        role: ``weight`` or ``activation``.
        groups: number of clips.

    Raises:
        ValueError: for an unknown name, bits outside 2..8, or an option's bad value.
    """
    options = {k: v for k, v in specification.items() if k not in ("quantizer", "granularity")}
    return get_class(specification["quantizer"])(groups=groups, role=role, **options)
