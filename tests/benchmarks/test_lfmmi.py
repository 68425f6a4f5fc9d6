"""The benchmark of the LF-MMI loss runs, in miniature."""

import json
import subprocess
import sys

from interpreter import REPOSITORY


def test_smoke():
    options = ["--pdfs", "40", "--batch", "2", "--frames", "20", "--repeats", "1"]
    done = subprocess.run(
        [sys.executable, "benchmarks/lfmmi.py", *options],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout)
    assert result["states"] == 40 and result["loss_both"] > result["lattices"] > 0
