"""INT4 LSTM against the CPU runtimes that there are, interleaved in one process.

    python benchmarks/lstm.py                    # all shapes: make bench
    python benchmarks/lstm.py --shapes a1 c1 --threads 1
    python benchmarks/lstm.py --smoke            # a second or two, for CI

Prints medians and writes them to exp/bench/lstm.json: a list of objects with ``shape, threads,
candidate, median_s`` and more. Below the table stands what the machine could do at best.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from lstm_candidates import CANDIDATES, OURS, Problem, Shape

from espnet_quant4.text_files import write_text

SHAPES = {
    "a1": Shape(640, 640, 1, False, 1, 1),
    "a8": Shape(640, 640, 1, False, 8, 1),
    "s1": Shape(640, 640, 8, False, 1, 1),
    "b1": Shape(768, 768, 1, False, 1, 1),
    "b16": Shape(768, 768, 1, False, 1, 16),
    "c1": Shape(240, 640, 6, True, 500, 1),
    "c8": Shape(240, 640, 6, True, 500, 8),
    "d1": Shape(140, 512, 4, True, 500, 1),
}
SMOKE = {"a1": Shape(24, 16, 1, False, 1, 1), "c8": Shape(12, 16, 2, True, 5, 3)}
LEAST_ROUNDS = 3
# Times faster than the best peer, with one thread.
TARGETS = {"a1": 2.0, "a8": 1.6, "s1": 3.0, "b1": 1.9, "b16": 1.6, "c1": 1.9, "c8": 1.7, "d1": 1.8}


def build(problem: Problem, names: list[str], threads: int) -> dict:
    """Build the candidates and check each against ``torch.nn.LSTM``."""
    with torch.no_grad():
        expected = problem.lstm(problem.x, (problem.hidden, problem.cell))[0].numpy()
    calls = {}
    for name in names:
        make, tolerance, install = CANDIDATES[name]
        try:
            call = make(problem, threads)
        except ImportError as error:
            print(f"{name}: absent ({error}); {install}")
            continue
        error = float(np.abs(np.asarray(call()[0]) - expected).max())
        if tolerance is not None and error > tolerance:
            raise RuntimeError(f"{name}: output differs by {error:.2g}, over {tolerance:.2g}")
        calls[name] = (call, error)
    return calls


def measure(calls: dict, seconds: float) -> dict[str, list[float]]:
    """Time the candidates in turn, until the time is over, each at least `LEAST_ROUNDS` times.

    Twice is enough where a round takes minutes.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    start_of_all = time.perf_counter()
    rounds = 0
    while True:
        spent = time.perf_counter() - start_of_all
        if rounds >= (LEAST_ROUNDS if spent < 10 * seconds else 2) and spent > seconds:
            return times
        for name, (call, _) in calls.items():
            if not times[name] or times[name][-1] < 0.05:
                call()  # caches and threads are still those of the candidate before
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
        rounds += 1


def run(
    shapes: dict[str, Shape], names: list[str], threads: list[int], seconds: float, output: Path
) -> None:
    """Measure all shapes, print a table for each, and write what is measured so far."""
    rows = []
    for key, shape in shapes.items():
        for count in threads:
            torch.set_num_threads(count)
            calls = build(Problem(shape), names, count)
            times = measure(calls, seconds)
            median = {name: statistics.median(found) for name, found in times.items()}
            peers = {name: found for name, found in median.items() if name not in OURS}
            best = min(peers.values(), default=float("nan"))
            print(f"\n{key}, {count} thread{'s' if count > 1 else ''}: {shape}")
            for name, found in times.items():
                quarter, _, three = statistics.quantiles(found, n=4)
                rate = shape.multiply_accumulates / median[name] / 1e9
                print(
                    f"  {name:<20} {median[name] * 1e6:>12.1f} us ({quarter * 1e6:.1f} to "
                    f"{three * 1e6:.1f})  {rate:>6.1f} G/s  {best / median[name]:>5.2f} x best peer"
                    f"  error {calls[name][1]:.1e}"
                )
                rows.append(
                    {
                        "shape": key,
                        "threads": count,
                        "candidate": name,
                        "median_s": median[name],
                        "quartiles_s": [quarter, three],
                        "rounds": len(found),
                        "multiply_accumulates": shape.multiply_accumulates,
                        "times_faster_than_best_peer": best / median[name],
                    }
                )
            if "int4" in median and peers and count == 1 and shape is SHAPES.get(key):
                reached, wanted = best / median["int4"], TARGETS[key]
                verdict = "reached" if reached >= wanted else "missed"
                print(f"  target {wanted:.1f} x, {reached:.2f} x: {verdict}")
            write_text(output, json.dumps(rows, indent=1) + "\n")


def print_limits(seconds: float) -> None:
    """Print what this machine could do at best with the instruction set that is used."""
    from espnet_quant4.kernels import native

    library, number = native.load(), native.selected_instruction_set()
    name = list(native.instruction_sets())[number]
    peak = library.quant4_peak_macs(number, seconds) / 1e9
    print(
        f"\nlimits, one thread: {name} {peak:.1f} G multiply-accumulates a second from the first cache"
    )
    for level, size in (
        ("second-level cache", 256 << 10),
        ("third-level", 4 << 20),
        ("memory", 64 << 20),
    ):
        rate = library.quant4_read_bandwidth(size, seconds) / 1e9
        print(f"  {level:<20} {rate:>6.1f} GB/s read = weights for {2 * rate:.1f} G/s at batch 1")


def get_parser() -> argparse.ArgumentParser:
    """Return the benchmark's parser."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--candidates", nargs="+", choices=CANDIDATES, default=list(CANDIDATES))
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="for each shape and thread count"
    )
    parser.add_argument("--output", type=Path, default=Path("exp/bench/lstm.json"))
    parser.add_argument("--smoke", action="store_true")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    args = get_parser().parse_args(arguments)
    warnings.simplefilter("ignore", UserWarning)
    shapes = SMOKE if args.smoke else {key: SHAPES[key] for key in SHAPES if key in args.shapes}
    with torch.no_grad():
        seconds = 0.1 if args.smoke else args.seconds
        run(shapes, args.candidates, args.threads, seconds, args.output)
    print_limits(0.05 if args.smoke else 1.0)
    print(f"written: {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
