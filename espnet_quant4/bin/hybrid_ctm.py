"""``espnet-quant4 hybrid-ctm``: word times of recognized text, as NIST's CTM.

Each hypothesis is aligned with the scores that were searched. Words of utterances without an alignment
are spread evenly, and ``ctm_spread.txt`` lists these with the reason.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_quant4.bin.command import run_command
from espnet_quant4.hybrid.decode.word_times import (
    AlignmentOptions,
    timed_words,
    word_frames,
)
from espnet_quant4.hybrid.kaldi_files.archives import Matrices
from espnet_quant4.hybrid.lang.lang_directory import Lang
from espnet_quant4.report.ctm import format_ctm, read_hypotheses, read_segments
from espnet_quant4.text_files import write_lines

_HELP = {
    "acoustic_scale": "of the scores; that of the search",
    "beam": "paths that cost more than the best one by this are given up",
    "retry_beam": "the same for utterances that this leaves without a path",
}


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="espnet-quant4 hybrid-ctm", description=(__doc__ or "").replace("``", "")
    )
    parser.add_argument("--text", type=Path, required=True, help="hypotheses, of hybrid-rescore")
    parser.add_argument("--scores", type=Path, required=True, help="scores.scp that was searched")
    parser.add_argument("--lang", type=Path, required=True, help="lang folder of the graph")
    parser.add_argument("--model", type=Path, required=True, help="folder of final.mdl and tree")
    parser.add_argument("--output", type=Path, required=True, help="folder for ctm")
    parser.add_argument(
        "--segments",
        type=Path,
        help="segments or call_segments; left out: each utterance is a file with channel 1",
    )
    parser.add_argument(
        "--channels",
        type=Path,
        help="Kaldi's reco2file_and_channel; left out: the one beside --segments",
    )
    parser.add_argument("--frame_shift", type=float, default=0.01, help="seconds")
    for field in dataclasses.fields(AlignmentOptions):
        parser.add_argument(
            f"--{field.name}", type=float, default=field.default, help=_HELP[field.name]
        )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the CTM; returns the exit status."""
    parser = get_parser()
    args = parser.parse_args(arguments)
    if args.channels and not args.segments:
        parser.error("--channels is for the recordings of --segments; give these too")
    if not args.frame_shift > 0:
        parser.error(f"--frame_shift {args.frame_shift:g}: valid are numbers above 0")
    _run(args)
    return 0


def _run(args: argparse.Namespace) -> None:
    names = [field.name for field in dataclasses.fields(AlignmentOptions)]
    options = AlignmentOptions(**{name: getattr(args, name) for name in names})
    hypotheses = read_hypotheses(args.text)
    segments = read_segments(args.segments, args.channels) if args.segments else None
    scores = Matrices(args.scores)
    found = word_frames(scores, hypotheses, Lang(args.lang), args.model, options)
    words = timed_words(hypotheses, found, segments, args.frame_shift)
    failed = args.output / "ctm_spread.txt"
    write_lines(failed, (f"{utterance} {why}" for utterance, why in sorted(found.failed.items())))
    write_lines(args.output / "ctm", format_ctm(words).splitlines())
    print(f"{args.output}/ctm: {len(words)} words of {len(found.frames)} utterances")
    if found.failed:
        print(f"{failed}: words of {len(found.failed)} utterances are spread evenly")


if __name__ == "__main__":
    sys.exit(run_command("hybrid-ctm", main))
