"""Time of the LF-MMI loss and its gradient on the CPU.

    python benchmarks/lfmmi.py [--threads 1] [--order 2] [--repeats 10]

Alignments are drawn from a random Markov chain of pdf ids with runs of 3 frames in the mean, 10
successors a pdf id; the denominator graph is estimated on 500 of them. Prints one JSON object; times
are medians, in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from espnet_quant4.hybrid.lfmmi import build_lfmmi_loss
from espnet_quant4.hybrid.lfmmi.denominator import estimate_denominator
from espnet_quant4.hybrid.lfmmi.fst_text import write_fst
from espnet_quant4.hybrid.lfmmi.lattice_score import lattice_score

SUCCESSORS, MEAN_RUN, UTTERANCES = 10, 3, 500


def draw_alignments(count: int, frames: int, num_pdfs: int, seed: int) -> list[np.ndarray]:
    """Return ``count`` alignments of ``frames`` pdf ids."""
    generator = np.random.default_rng(seed)
    successors = np.stack([generator.permutation(num_pdfs)[:SUCCESSORS] for _ in range(num_pdfs)])
    # Like those of speech, some successors are much more frequent than others.
    weights = 1 / np.arange(1, SUCCESSORS + 1)
    weights /= weights.sum()
    alignments = []
    for _ in range(count):
        pdf, ids = int(generator.integers(num_pdfs)), []
        while len(ids) < frames:
            ids += [pdf] * int(generator.geometric(1 / MEAN_RUN))
            pdf = int(generator.choice(successors[pdf], p=weights))
        alignments.append(np.array(ids[:frames]))
    return alignments


def milliseconds(function, repeats: int) -> float:
    """Return the median time of a call."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return round(statistics.median(times), 1)


def get_parser() -> argparse.ArgumentParser:
    """Return the benchmark's parser."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (
        ("threads", 1), ("order", 2), ("pdfs", 300), ("batch", 8), ("frames", 300), ("repeats", 10),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    args = get_parser().parse_args(arguments)
    torch.set_num_threads(args.threads)
    alignments = draw_alignments(UTTERANCES, args.frames, args.pdfs, seed=0)
    named = [(str(i), ids) for i, ids in enumerate(alignments)]
    graph = estimate_denominator(named, args.pdfs, args.order)
    with tempfile.TemporaryDirectory() as folder:
        write_fst(graph, Path(folder, "den.fst"))
        loss = build_lfmmi_loss(str(Path(folder, "den.fst")))
    batch = alignments[: args.batch]
    pdf_ids = torch.from_numpy(np.stack(batch))
    lengths = torch.full((len(batch),), args.frames)
    torch.manual_seed(0)
    logits = torch.randn(len(batch), args.frames, args.pdfs, requires_grad=True)
    result = {
        **vars(args),
        "states": len(loss.denominator.pdfs),
        "arcs": len(graph.source),
        "lattices": milliseconds(lambda: loss.numerator.build(batch), args.repeats),
    }
    lattices = loss.numerator.build(batch)
    scores = {
        "numerator": lambda: lattice_score(logits, lattices).sum(),
        "denominator": lambda: loss.denominator(logits, lengths).sum(),
        "loss": lambda: loss(logits, lengths, pdf_ids)[0],
    }
    for name, score in scores.items():
        result[f"{name}_forward"] = milliseconds(score, args.repeats)
        result[f"{name}_both"] = milliseconds(lambda s=score: s().backward(), args.repeats)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
