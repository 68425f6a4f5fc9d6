"""Count word and character errors of a transcript, with NIST's sclite or as it does."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_quant4.bin.arguments import require_folder_output
from espnet_quant4.bin.command import run_command

SCORERS = ("auto", "builtin", "sclite")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="espnet-quant4 score", description=__doc__)
    parser.add_argument("reference", type=Path, help="Kaldi-style text file")
    parser.add_argument("hypothesis", type=Path, help="Kaldi-style text file")
    parser.add_argument("--alignments", action="store_true", help="print every utterance's too")
    parser.add_argument(
        "--scorer", choices=SCORERS, default="auto", help="auto: sclite where it is installed"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="folder for score_wer and score_cer: ref.trn, hyp.trn, result.txt",
    )
    args = parser.parse_args(arguments)

    from espnet_quant4.report.results import score_texts, write_score
    from espnet_quant4.report.sclite import find_sclite, score_counts
    from espnet_quant4.report.scoring import format_counts, format_score

    require_folder_output("--output", args.output)
    scores = score_texts(args.reference, args.hypothesis)
    program = find_sclite() if args.scorer != "builtin" else None
    if args.scorer == "sclite" and program is None:
        raise FileNotFoundError("sclite is not installed (Debian: apt-get install sctk)")
    for rate, result in scores.items():
        counts = score_counts(result, program) if program else result.counts
        units = {"wer": "words", "cer": "characters"}[rate]
        print(f"{units}, counted by {program or 'the built-in scorer'}")
        print(format_counts(counts))
        if args.alignments:
            print(format_score(result).partition("\n\n")[2])
        if args.output:
            write_score(args.output / f"score_{rate}", result)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("score", main))
