"""The comparison of runtimes runs, in miniature, and its candidates agree."""

import json
import subprocess
import sys

import pytest
from interpreter import REPOSITORY


@pytest.mark.slow
def test_smoke(tmp_path):
    output = tmp_path / "lstm.json"
    done = subprocess.run(
        [
            sys.executable,
            "benchmarks/lstm.py",
            "--smoke",
            "--threads",
            "1",
            "--output",
            str(output),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(output.read_text())
    assert {"shape", "threads", "candidate", "median_s"} <= set(rows[0])
    assert {"int4", "emulated", "torch_float32", "torch_int8"} <= {r["candidate"] for r in rows}
    assert all(row["median_s"] > 0 for row in rows)
    assert {row["shape"] for row in rows} == {"a1", "c8"}
    # What is not installed is named, with how to get it.
    for name in ("onnxruntime_int8", "openvino_float32"):
        assert name in done.stdout
    assert "limits" in done.stdout
