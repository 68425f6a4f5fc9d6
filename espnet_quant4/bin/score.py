"""Count word and character errors of a transcript, as NIST's sclite does."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="espnet-quant4 score", description=__doc__)
    parser.add_argument("reference", type=Path, help="Kaldi-style text file")
    parser.add_argument("hypothesis", type=Path, help="Kaldi-style text file")
    parser.add_argument("--alignments", action="store_true", help="print every utterance's too")
    args = parser.parse_args(arguments)

    from espnet_quant4.report.results import score_texts
    from espnet_quant4.report.scoring import ScoringError, format_score

    try:
        scores = score_texts(args.reference, args.hypothesis)
    except (ScoringError, FileNotFoundError) as error:
        print(f"espnet-quant4 score: {error}", file=sys.stderr)
        return 1
    for rate, result in scores.items():
        text = format_score(result)
        print({"wer": "words", "cer": "characters"}[rate])
        print(text if args.alignments else text.partition("\n\n")[0].rstrip())
    return 0
