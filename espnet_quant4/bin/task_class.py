"""ESPnet's task classes by the names that commands know them by."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Module and class; imported when a task is asked for, which takes seconds.
TASKS = {
    "asr": ("espnet2.tasks.asr", "ASRTask"),
    "hybrid": ("espnet_quant4.hybrid.task", "HybridTask"),
    "lm": ("espnet2.tasks.lm", "LMTask"),
}
# Those whose models hear speech, which reports and the search over widths are about.
SPEECH_TASKS = ("asr", "hybrid")
# Where each task's configuration names the scheme of the whole model.
SCHEME_OPTIONS = {"asr": "model_conf", "hybrid": "model_conf", "lm": "lm_conf"}


def task_class(name: str) -> Any:
    """Return the class of a name in `TASKS`, with this package's choices registered."""
    import espnet_quant4.plugin  # the switch that turns the plugin off is not for our own commands

    module, klass = TASKS[name]
    found = getattr(import_module(module), klass)
    espnet_quant4.plugin.register()
    return found
