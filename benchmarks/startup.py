"""What the plugin's .pth file adds to the start of a Python that never imports ESPnet.

    python benchmarks/startup.py [--runs 200]

Makes two throw-away virtual environments, one with `espnet_quant4.pth` and one without, and starts
`python -c pass` in both by turns, the first of each pair alternating.  Prints one JSON object; all
times are in milliseconds.  `added` is the median of the paired differences of the processes' wall
times, with its quartiles.  Measured with and without byte code, since some installers leave none.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from interpreter import Interpreter  # noqa: E402


def wall(python: Path, environment: dict[str, str]) -> float:
    """Milliseconds that one `python -c pass` takes."""
    start = time.perf_counter()
    subprocess.run([python, "-c", "pass"], check=True, env=environment)
    return 1e3 * (time.perf_counter() - start)


def measure(plugin: Path, plain: Path, environment: dict[str, str], runs: int) -> dict[str, float]:
    """Compare two interpreters."""
    for python in (plugin, plain):
        wall(python, environment)
    differences = []
    for run in range(runs):
        times = {}
        for python in (plugin, plain) if run % 2 else (plain, plugin):
            times[python] = wall(python, environment)
        differences.append(times[plugin] - times[plain])
    low, median, high = statistics.quantiles(differences, n=4)
    numbers = {"added": median, "added_q1": low, "added_q3": high}
    return {name: round(value, 2) for name, value in numbers.items()}


def get_parser() -> argparse.ArgumentParser:
    """Return the benchmark's parser."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200, help="number of paired starts")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = get_parser()
    runs = parser.parse_args(arguments).runs
    if runs < 2:
        parser.error(f"--runs {runs}: valid are 2 and above, for there to be quartiles")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plugin = Interpreter(folder / "plugin", [REPOSITORY]).executable
        plain = Interpreter(folder / "plain", [REPOSITORY], plugin=False).executable
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        cached = {**kept, "PYTHONPYCACHEPREFIX": str(folder / "cache")}
        subprocess.run([plugin, "-c", "pass"], check=True, env=cached)
        result = {
            "python": sys.version.split()[0],
            "runs": runs,
            "with_byte_code": measure(plugin, plain, cached, runs),
            "without_byte_code": measure(
                plugin, plain, {**kept, "PYTHONDONTWRITEBYTECODE": "1"}, runs
            ),
        }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
