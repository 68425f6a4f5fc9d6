"""The benchmark of the published sizes runs, on half a second of speech."""

import json
import subprocess
import sys

import pytest
from interpreter import REPOSITORY


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "systems", "millions"),
    [("hybrid", ["tailored"], 31.0)],
)
def test_smoke(model, systems, millions, tmp_path):
    output = tmp_path / "sizes.json"
    options = ["--models", model, "--systems", *systems, "--output", str(output)]
    options += ["--steps", "1", "--seconds", "0.5", "--utterances", "2"]
    done = subprocess.run(
        [sys.executable, "benchmarks/published_sizes.py", *options],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(output.read_text())
    assert [row["system"] for row in rows] == systems
    for row in rows:
        assert row["parameters"] == pytest.approx(millions * 1e6, rel=0.005)
        # Weights, gradients and the optimizer's two moments.
        assert row["grown_mb"] > 16 * millions
        assert row["median_s"] > 0 and row["loss"] > 0
    assert "step 1/1" in done.stderr and "times_fp32" in done.stdout
