"""``espnet-quant4 hybrid-lang``: lexicon, topology and L of a hybrid system."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_quant4.bin.command import run_command
from espnet_quant4.hybrid.lang.lang_directory import OOV_POLICIES, prepare_lang, read_transcripts
from espnet_quant4.hybrid.lang.lexicon import LexiconError


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a lang folder; returns the exit status."""
    parser = argparse.ArgumentParser(prog="espnet-quant4 hybrid-lang", description=__doc__)
    parser.add_argument("--lexicon", type=Path, required=True, help="WORD PHONE... a line")
    parser.add_argument("--text", type=Path, required=True, help="transcripts of the training part")
    parser.add_argument("--output", type=Path, required=True, help="the lang folder")
    parser.add_argument("--unknown_word", default="<UNK>", help="stands for words without phones")
    parser.add_argument("--oov", choices=OOV_POLICIES, default="map")
    parser.add_argument("--silence_probability", type=float, default=0.5)
    parser.add_argument("--topology", type=Path, help="a topo file of your own")
    args = parser.parse_args(arguments)
    try:
        unknown = prepare_lang(
            args.lexicon,
            args.output,
            read_transcripts(args.text),
            args.unknown_word,
            args.oov,
            args.silence_probability,
            args.topology,
        )
    except (LexiconError, OSError) as error:
        print(f"hybrid-lang: {error}", file=sys.stderr)
        return 1
    if unknown:
        print(
            f"{args.output}/oov_counts.txt: {len(unknown)} words without pronunciation, "
            f"{sum(unknown.values())} times in all, are mapped to {args.unknown_word}"
        )
    print(f"written: {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("hybrid-lang", main))
