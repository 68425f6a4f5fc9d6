"""Float LSTM on CPU, forward and backward: packed against padded, on lengths of 70% to 100%.

    python benchmarks/float_lstm.py [--repeats 5] [--threads 1]

Prints the median of each candidate and its ratio to the first, timed in turn.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch.nn.utils.rnn import pack_padded_sequence

from espnet_quant4.nn import QuantLSTM


def main() -> None:
    """Time the candidates."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--frames", type=int, default=75)
    parser.add_argument("--size", type=int, default=160)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    lstm = QuantLSTM(args.size, args.size, 3, batch_first=True, bidirectional=True)
    x = torch.randn(args.batch, args.frames, args.size)
    lengths = torch.linspace(args.frames, 0.7 * args.frames, args.batch).long()
    packed = pack_padded_sequence(x, lengths, batch_first=True)
    candidates = {
        "PackedSequence": lambda: lstm(packed)[0].data,
        "lengths": lambda: lstm(x, lengths=lengths)[0],
        "lengths, no final states": lambda: lstm(x, lengths=lengths, final_states=False)[0],
        "full lengths": lambda: lstm(x)[0],
    }
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for repeat in range(args.repeats + 1):
        for name, forward in candidates.items():
            started = time.perf_counter()
            forward().sum().backward()
            if repeat:  # the first is a warm-up
                times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in times.items()}
    first = next(iter(medians.values()))
    for name, median in medians.items():
        print(f"{name:26} {1e3 * median:8.1f} ms  {median / first:5.2f}")


if __name__ == "__main__":
    main()
