"""Registers the plugin as soon as ESPnet's tasks are imported, in any process, and not before.

ESPnet has no plugin interface, and its spawned workers and inference commands import only its own
task modules.  So the package's finder (`espnet_quant4.PostImportFinder`, there from interpreter
start) comes here when one of its `TARGETS` is imported.  The ordinary finders find the module; one
step is added after its execution: `espnet_quant4.plugin.register(module)`.  The means is a loader
that wraps another's `exec_module` (PEP 451) and then hands the module back to that other loader,
so that reloading, `runpy`, `inspect.getsource` and pickling work as before.
"""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from espnet_quant4 import SWITCH, TARGETS, PostImportFinder


def find_spec(
    fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
) -> ModuleSpec | None:
    """Find a module as the other finders of `sys.meta_path` do, and wrap its loader."""
    for finder in tuple(sys.meta_path):
        # By module, not by class: a finder from before a reload is of another class.
        if getattr(finder, "__module__", "") == PostImportFinder.__module__:
            continue
        ask = getattr(finder, "find_spec", None)
        spec: ModuleSpec | None = None if ask is None else ask(fullname, path, target)
        if spec is not None:
            if hasattr(spec.loader, "exec_module"):
                spec.loader = PostImportLoader(spec.loader)  # type: ignore[assignment]
            else:
                _warn(fullname, f"its loader {spec.loader!r} has no exec_module")
            return spec
    return None


class PostImportLoader:
    """The loader of a target: all that the real one is, and registers after `exec_module`."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        # create_module, and for those who only look at a spec: get_code, get_source, ...
        if name == "_real":
            raise AttributeError(name)  # a copy that is not initialized yet
        return getattr(self._real, name)

    def exec_module(self, module: ModuleType) -> None:
        """Execute `module` with its own loader, which it gets back, then register."""
        spec = module.__spec__
        if spec is not None and spec.loader is self:  # type: ignore[comparison-overlap]
            spec.loader = self._real
        if getattr(module, "__loader__", None) is self:
            module.__loader__ = self._real
        self._real.exec_module(module)
        try_to_register(module)


def register_imported() -> None:
    """Register with those targets that were imported before this package was."""
    for name in TARGETS:
        if name in sys.modules:
            # Another thread may be in the middle of this import; import_module waits for it.
            try_to_register(import_module(name))


def try_to_register(module: ModuleType) -> bool:
    """Call `espnet_quant4.plugin.register(module)`; on failure warn and let ESPnet go on.

    Returns:
        Whether it worked.  The RuntimeWarning says why not.
    """
    try:
        from espnet_quant4.plugin import register

        register(module)
    except Exception as error:
        _warn(module.__name__, f"{type(error).__name__}: {error}")
        return False
    return True


def _warn(name: str, cause: str) -> None:
    warnings.warn(
        f"espnet_quant4 could not register with {name}: {cause}. ESPnet goes on without it, and "
        "quant_* names in a configuration stay unknown. For the traceback run: python -c "
        f'"import {name}, espnet_quant4.plugin as p; p.register()". '
        f"To switch the plugin off, set {SWITCH}=1.",
        RuntimeWarning,
        stacklevel=3,
    )
