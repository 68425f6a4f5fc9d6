"""``espnet-quant4 hub5``: score Hub5-2000 (eval2000) and its kin with NIST's ``hubscr.pl``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_quant4.bin.arguments import require_folder_output
from espnet_quant4.bin.command import run_command


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(prog="espnet-quant4 hub5", description=__doc__)
    parser.add_argument("--stm", type=Path, required=True, help="reference")
    parser.add_argument("--glm", type=Path, required=True, help="the test's global map")
    hypothesis = parser.add_mutually_exclusive_group(required=True)
    hypothesis.add_argument("--hyp", type=Path, help="Kaldi-style text, one utterance a line")
    hypothesis.add_argument("--ctm", type=Path, help="words with times, instead of --hyp")
    parser.add_argument("--segments", type=Path, help="Kaldi-style segments of --hyp")
    parser.add_argument(
        "--channels",
        type=Path,
        help="Kaldi's reco2file_and_channel; left out: the one beside --segments",
    )
    parser.add_argument(
        "--parts",
        nargs="+",
        metavar="NAME=PREFIX",
        default=["Switchboard=sw_", "CallHome=en_"],
        help="parts by what the names of their calls begin with; RT-03: Switchboard=sw_ Fisher=fsh_",
    )
    parser.add_argument(
        "--output", type=Path, required=True, help="folder for hub5.json and sclite's reports"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = get_parser()
    args = parser.parse_args(arguments)
    if args.hyp and not args.segments:
        parser.error("--hyp needs --segments, for call, channel and times of each utterance")
    pairs = [item.partition("=") for item in args.parts]
    parts = {name: prefix for name, _, prefix in pairs}
    # Each part gets a folder of its name, beside that of all.
    folders = {name.lower() for name in parts} - {"all", "average"}
    if len(folders) < len(pairs) or not all(n.isidentifier() and p for n, p in parts.items()):
        parser.error(
            f"--parts {' '.join(args.parts)}: each must be another NAME=PREFIX, the name of letters "
            "and digits and neither All nor Average"
        )

    from espnet_quant4.report import hub5
    from espnet_quant4.report.ctm import count_overlaps, read_ctm, read_hypotheses, read_segments
    from espnet_quant4.report.results import to_markdown, write_json
    from espnet_quant4.report.stm import read_stm

    require_folder_output("--output", args.output)
    stm = read_stm(args.stm)
    for repair, number in stm.repairs.items():
        print(f"{args.stm}: {repair}: {number}")
    if overlaps := count_overlaps(stm.segments):
        print(f"{args.stm}: overlapping segments, scored as they stand: {overlaps}")
    if args.ctm:
        words = read_ctm(args.ctm)
    else:
        segments = read_segments(args.segments, args.channels)
        if overlaps := count_overlaps(segments.values()):
            print(f"{args.segments}: overlapping segments, whose words may mix: {overlaps}")
        if outside := hub5.unmatched(segments, stm):
            print(
                f"{args.segments}: segments without reference, whose words are insertions: "
                f"{len(outside)}, such as {outside[0]}"
            )
        words = hub5.place(read_hypotheses(args.hyp), segments, stm, str(args.hyp))
    rows = hub5.score_hub5(stm, args.glm, words, args.output, parts)
    write_json(rows, args.output / "hub5.json")
    removed = {kind: rows[-2 if len(parts) > 1 else -1][f"removed_{kind}"] for kind in hub5.REMOVED}
    listed = ", ".join(f"{number} {kind.replace('_', ' ')}" for kind, number in removed.items())
    print(f"left out of {len(words)} recognized words: {listed}")
    print(to_markdown(rows, hub5.COLUMNS))
    print(f"\nsaved {args.output}/hub5.json; sclite's reports: {args.output}/*/hyp.ctm.filt.*")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("hub5", main))
