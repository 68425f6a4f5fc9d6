"""ESPnet's task classes by the names that commands know them by."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Module and class; imported when a task is asked for, which takes seconds.
TASKS = {
    "asr": ("espnet2.tasks.asr", "ASRTask"),
    "hybrid": ("espnet_quant4.hybrid.task", "HybridTask"),
}


def task_class(name: str) -> Any:
    """Return the class of a name in `TASKS`."""
    module, klass = TASKS[name]
    return getattr(import_module(module), klass)
