"""4-bit quantization-aware training and INT4 inference for ESPnet's LSTM recognizers.

Importing the package puts a finder in front of `sys.meta_path` that waits for ESPnet's tasks and
leaves the rest to `espnet_quant4.hook`.  `espnet_quant4.pth` does this import at the start of
every Python of the environment, so this file stays small (it is compiled each time where byte
code is not kept) and imports only what the interpreter has loaded already.
"""

import sys
from os import environ

__version__ = "0.1.0"

SWITCH = "ESPNET_QUANT4_DISABLE"

TARGETS = (
    "espnet2.tasks.asr",
    "espnet2.tasks.lm",
    "espnet3.systems.esp2_asr.task",  # a copy of espnet2.tasks.asr with choices of its own
    "espnet3.utils.task_utils",  # writes ESPnet3's config.yaml before the model is built
)


class PostImportFinder:
    """Meta-path finder for the modules in `TARGETS`; it knows no other module."""

    @staticmethod
    def find_spec(fullname, path=None, target=None):  # type: ignore[no-untyped-def]
        """Return the module's spec with a loader that registers the plugin after executing it."""
        if fullname in TARGETS:
            from espnet_quant4.hook import find_spec

            return find_spec(fullname, path, target)
        return None


if environ.get(SWITCH, "").lower() in ("", "0", "no", "false"):
    # Without what an earlier load of this file left: the package may be reloaded.
    sys.meta_path[:] = [f for f in sys.meta_path if getattr(f, "__module__", "") != __name__]
    sys.meta_path.insert(0, PostImportFinder)
    if any(name in sys.modules for name in TARGETS):
        from espnet_quant4.hook import register_imported

        register_imported()
