"""``espnet-quant4 hybrid-features``: write the filterbanks that a network reads."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_quant4.bin.command import run_command
from espnet_quant4.hybrid.features.speakers import write_filterbanks


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a data folder's features; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="espnet-quant4 hybrid-features",
        description="Write log mel energies of a data folder, 10 ms shift, of mean 0 and variance 1 "
        "for each speaker: feats.ark and feats.scp.",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of wav.scp and utt2spk")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--num_mels", type=int, default=40, help="energies a frame")
    args = parser.parse_args(arguments)
    if args.num_mels < 1:
        parser.error(f"--num_mels {args.num_mels}: valid are 1 and above")
    count = write_filterbanks(args.data, args.output, args.num_mels, say=print)
    print(f"{args.output}: features of {count} utterances")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("hybrid-features", main))
