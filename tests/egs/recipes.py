"""Loads the recipes' scripts, which are no package."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
EGS = REPOSITORY / "egs"
# For trainings in tests: no augmentation, no schedule, one process; a handful of steps must do.
UNADORNED = {
    "num_iters_per_epoch": None,
    "num_workers": 0,
    "keep_nbest_models": 1,
    "specaug": None,
    "specaug_conf": {},
    "scheduler": None,
    "scheduler_conf": {},
}


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


def run_recipe(command, status=0, **environment):
    """Run a recipe's command, by the plain driver unless ``ESPNET_ROOT`` is given; return it done."""
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=1800,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ESPNET_ROOT": "", **environment},
    )
    assert done.returncode == status, done.stdout[-5000:] + done.stderr[-5000:]
    return done
