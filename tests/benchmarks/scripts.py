"""Loads the benchmarks, which are no package."""

import importlib.util
import sys

from interpreter import REPOSITORY

BENCHMARKS = REPOSITORY / "benchmarks"
# What only serves another script is no benchmark.
NAMES = sorted(
    path.stem
    for path in BENCHMARKS.glob("*.py")
    if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
)


def load(name):
    """Import ``benchmarks/NAME.py``, with the scripts beside it on the module path."""
    if str(BENCHMARKS) not in sys.path:
        sys.path.append(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
