"""Say whether two systems that recognized the same utterances differ by more than chance.

    espnet-quant4 compare --reference dump/raw/test/text \\
        --first exp/seed1/hybrid_fp32/decode_hybrid/test/text exp/seed2/... \\
        --second exp/seed1/hybrid_tailored/decode_hybrid_int4/test/text exp/seed2/...

Texts are Kaldi-style, the n-th of --first is paired with the n-th of --second: one pair a seed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from espnet_quant4.bin.arguments import refuse_twice, require_file_output, whole_number
from espnet_quant4.bin.command import run_command


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="espnet-quant4 compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--first", type=Path, nargs="+", required=True)
    parser.add_argument("--second", type=Path, nargs="+", required=True)
    parser.add_argument(
        "--samples",
        type=whole_number(1, 10_000_000),
        default=10000,
        help="draws of the bootstrap",
    )
    parser.add_argument("--output", type=Path, help="JSON file to write")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = get_parser()
    args = parser.parse_args(arguments)
    if len(args.first) != len(args.second):
        parser.error(
            f"--first has {len(args.first)} files and --second {len(args.second)}; they are paired"
        )
    refuse_twice("--first with --second", list(zip(args.first, args.second, strict=True)))
    require_file_output("--output", args.output)

    from espnet_quant4.report.results import score_texts, write_json
    from espnet_quant4.report.scoring import Counts
    from espnet_quant4.report.significance import bootstrap, matched_pairs

    pairs = [
        tuple(score_texts(args.reference, path)["wer"] for path in pair)
        for pair in zip(args.first, args.second, strict=True)
    ]
    aligned = [(first.alignments, second.alignments) for first, second in pairs]
    difference = bootstrap(aligned, args.samples)
    segments = matched_pairs(aligned)
    rates = [sum((pair[side].total for pair in pairs), Counts()).error_rate for side in range(2)]
    row = {
        "first_wer": round(rates[0], 2),
        "second_wer": round(rates[1], 2),
        "pairs": len(pairs),
        "difference": asdict(difference),
        "matched_pairs": asdict(segments),
    }
    print(
        f"word error rate: {rates[0]:.2f} and {rates[1]:.2f} %, {len(pairs)} pairs of systems\n"
        f"difference: {difference.estimate:+.2f} %, 95 % interval {difference.low:+.2f} to "
        f"{difference.high:+.2f}, p = {difference.p:.4f} (bootstrap over utterances)\n"
        f"matched pairs: p = {segments.p:.4f} ({segments.segments} segments, "
        f"{segments.mean:+.3f} errors a segment)"
    )
    if args.output is not None:
        write_json([row], args.output)
        print(f"saved {args.output}: {json.dumps(row['matched_pairs'])}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("compare", main))
