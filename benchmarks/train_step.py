"""A training step of an LSTM on CPU, forward and backward, against other packages, interleaved.

    python benchmarks/train_step.py                  # all shapes: make bench-train
    python benchmarks/train_step.py --shapes small --rounds 9
    python benchmarks/train_step.py --smoke          # a second or two, for CI

Prints medians and their ratios, and writes exp/bench/train_step.json: a list of objects with ``shape``,
``threads``, ``candidate``, ``median_s`` and more. The peers are installed by `make bench-train`; what
is not there is left out, with a line that says so.
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

import torch
from train_candidates import CANDIDATES, PACKED, PADDED, Shape

from espnet_quant4.text_files import write_text

SHAPES = {
    "small": Shape(16, 100, 320, 320, 1),
    "transducer": Shape(16, 500, 240, 640, 2),
    "hybrid": Shape(8, 200, 140, 512, 4),
}
SMOKE = {"smoke": Shape(2, 6, 5, 8, 2)}
# What takes longer than this is timed in two rounds only.
LONG = 10.0
TARGETS = [
    ("fused", PADDED, 0.8),
    ("fused lengths", PACKED, 0.3),
    ("fused", "fms_mo", 0.2),
    ("fused", "brevitas", 0.2),
]


def measure(shape: Shape, names: list[str], rounds: int) -> dict[str, list[float]]:
    """Time the candidates in turn; one round before the first is not counted."""
    torch.manual_seed(0)
    x = torch.randn(shape.frames, shape.batch, shape.input_size, requires_grad=True)
    steps = {}
    for name in names:
        try:
            module, forward = CANDIDATES[name](shape, x)
        except ImportError as error:
            print(f"  {name}: absent ({error}); make bench-train installs it")
            continue
        gradient = torch.randn_like(forward(x))

        def step(module=module, forward=forward, gradient=gradient) -> None:
            module.zero_grad(set_to_none=True)
            x.grad = None
            forward(x).backward(gradient)

        steps[name] = step
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_number in range(rounds + 1):
        for name, step in steps.items():
            if times[name] and times[name][-1] > LONG and len(times[name]) >= 2:
                continue
            start = time.perf_counter()
            step()
            spent = time.perf_counter() - start
            if round_number or spent > LONG:
                times[name].append(spent)
            print(f"\r  round {round_number}/{rounds} {name:<15}", end="", flush=True)
    print("\r" + " " * 40, end="\r")
    return times


def report(key: str, shape: Shape, times: dict[str, list[float]], threads: int) -> list[dict]:
    """Print one shape's table and return its rows."""
    median = {name: statistics.median(found) for name, found in times.items()}
    print(f"{key}, {threads} threads: {shape}")
    rows = []
    for name, value in median.items():
        rate = shape.multiply_accumulates / value / 1e9
        ratio = value / median.get(PADDED, float("nan"))
        print(f"  {name:<15} {value * 1e3:>10.1f} ms  {rate:>6.1f} G/s  {ratio:>6.2f} x {PADDED}")
        row = {"shape": key, "threads": threads, "candidate": name, "median_s": value}
        row |= {"minimum_s": min(times[name]), "maximum_s": max(times[name])}
        rows.append({**row, "rounds": len(times[name]), "times_padded": ratio})
    for name, peer, wanted in TARGETS:
        if name in median and peer in median:
            ratio = median[name] / median[peer]
            verdict = "reached" if ratio <= wanted else "missed"
            print(f"  target {name} / {peer} at most {wanted}: {ratio:.3f}, {verdict}")
    return rows


def get_parser() -> argparse.ArgumentParser:
    """Return the benchmark's parser."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--candidates", nargs="+", choices=CANDIDATES, default=list(CANDIDATES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("exp/bench/train_step.json"))
    parser.add_argument("--smoke", action="store_true")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    args = get_parser().parse_args(arguments)
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    shapes = SMOKE if args.smoke else {key: SHAPES[key] for key in args.shapes}
    rows = []
    for key, shape in shapes.items():
        rounds = 1 if args.smoke else args.rounds
        rows += report(key, shape, measure(shape, args.candidates, rounds), args.threads)
        write_text(args.output, json.dumps(rows, indent=1) + "\n")
    print(f"written: {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
