"""Loads the recipes' scripts, which are no package."""

import importlib.util
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
EGS = REPOSITORY / "egs"


def load(path):
    """Import a script by its path under egs/."""
    name = "recipe_" + "_".join(Path(path).with_suffix("").parts)
    spec = importlib.util.spec_from_file_location(name, EGS / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def read_table(path):
    """Read `key value` lines of a Kaldi-style file."""
    pairs = (line.partition(" ") for line in Path(path).read_text().splitlines())
    return {key: value for key, _, value in pairs}
