"""Registers the plugin as soon as ESPnet's tasks are imported, in any process, and not before.

ESPnet has no plugin interface, and its spawned workers and inference commands import only its own
task modules.  So there are two steps, neither of which costs anything without ESPnet:

1. `espnet_quant4.pth`, which the interpreter reads at its start, waits for `import espnet2` (or
   `espnet3`) and then imports this package.
2. This package waits for the modules in `TARGETS`.  The ordinary finders find them; one thing is
   added after their execution: `espnet_quant4.plugin.register(module)`.

The means is a loader that wraps another's `exec_module` (PEP 451) and hands the module back to that
other loader, so that reloading, `runpy`, `inspect.getsource` and pickling work as before.
"""

import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

SWITCH = "ESPNET_QUANT4_DISABLE"

TARGETS = (
    "espnet2.tasks.asr",
    "espnet2.tasks.lm",
    "espnet3.systems.esp2_asr.task",  # a copy of espnet2.tasks.asr with choices of its own
    "espnet2.tasks.abs_task",  # starts a training and writes config.yaml
    "espnet2.train.trainer",  # validates
    "espnet3.utils.task_utils",  # writes ESPnet3's config.yaml before the model is built
)


def install() -> bool:
    """Wait for the targets; register with those that are imported already.

    Calling it again changes nothing.

    Returns:
        False if the environment variable `ESPNET_QUANT4_DISABLE` is set to anything but "", "0",
        "no" or "false", in which case nothing was done.
    """
    if os.environ.get(SWITCH, "").strip().lower() not in ("", "0", "no", "false"):
        return False
    sys.meta_path[:] = [finder for finder in sys.meta_path if not _is_ours(finder)]
    sys.meta_path.insert(0, PostImportFinder)
    for name in TARGETS:
        if name in sys.modules:
            # Another thread may be in the middle of this import; import_module waits for it.
            try_to_register(import_module(name))
    return True


def _is_ours(finder: object) -> bool:
    # By name, not by identity: a finder from before a reload is another class.
    return getattr(finder, "__module__", "") == __name__


class PostImportFinder:
    """Meta-path finder for the modules in `TARGETS`; it knows no other module."""

    @staticmethod
    def find_spec(
        fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a target as the other finders of `sys.meta_path` do, and wrap its loader."""
        if fullname not in TARGETS:
            return None
        for finder in tuple(sys.meta_path):
            ask = None if _is_ours(finder) else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = ask(fullname, path, target) if ask else None
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
