"""The comparison of training steps runs, in miniature."""

import json
import subprocess
import sys

import pytest
from interpreter import REPOSITORY


@pytest.mark.slow
def test_smoke(tmp_path):
    output = tmp_path / "train_step.json"
    done = subprocess.run(
        [sys.executable, "benchmarks/train_step.py", "--smoke", "--output", str(output)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(output.read_text())
    assert {"shape", "threads", "candidate", "median_s"} <= set(rows[0])
    # What the tests' own packages hold; Brevitas comes with the benchmark.
    own = {"nn.LSTM", "nn.LSTM packed", "fused", "fused lengths", "reference", "fms_mo"}
    assert own <= {row["candidate"] for row in rows}
    assert all(row["median_s"] > 0 for row in rows)
    assert "brevitas" in done.stdout
    assert "target fused / nn.LSTM at most 0.8" in done.stdout
