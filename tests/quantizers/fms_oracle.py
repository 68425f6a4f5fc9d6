"""The quantizers of ``fms-model-optimizer``, the open implementation of the paper's group.

Its package's ``__init__`` wants transformers, so the one module is imported without it.
"""

import importlib
import importlib.util
import sys
from types import ModuleType


def load():
    """Return ``fms_mo.quant.quantizers``."""
    if "fms_mo" not in sys.modules:
        spec = importlib.util.find_spec("fms_mo")
        assert spec is not None and spec.submodule_search_locations is not None, (
            "fms-model-optimizer is not installed: pip install --no-deps fms-model-optimizer"
        )
        package = ModuleType("fms_mo")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["fms_mo"] = package
    return importlib.import_module("fms_mo.quant.quantizers")
