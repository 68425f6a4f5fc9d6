"""``espnet-quant4 hybrid-lang``: lexicon, topology and L of a hybrid system."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_quant4.bin.command import run_command
from espnet_quant4.hybrid.lang.lang_directory import (
    MAX_OOV_SHARE,
    OOV_POLICIES,
    prepare_lang,
    read_transcripts,
)
from espnet_quant4.hybrid.stage_record import Stage, file_input

# What tells a lang folder.
MADE = ("phones.txt", "words.txt", "topo", "L.fst", "L_disambig.fst")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a lang folder; returns the exit status."""
    parser = argparse.ArgumentParser(prog="espnet-quant4 hybrid-lang", description=__doc__)
    parser.add_argument(
        "--lexicon",
        type=Path,
        required=True,
        help="WORD PHONE... a line; lexiconp.txt: WORD PROBABILITY PHONE...",
    )
    parser.add_argument("--text", type=Path, required=True, help="transcripts of the training part")
    parser.add_argument("--output", type=Path, required=True, help="the lang folder")
    parser.add_argument("--unknown_word", default="<UNK>", help="stands for words without phones")
    parser.add_argument("--oov", choices=OOV_POLICIES, default="map")
    parser.add_argument(
        "--max_oov_share",
        type=float,
        default=MAX_OOV_SHARE,
        help="largest share of words without phones in all words of the transcripts (%(default)s)",
    )
    parser.add_argument("--silence_probability", type=float, default=0.5)
    parser.add_argument("--topology", type=Path, help="a topo file of your own")
    args = parser.parse_args(arguments)
    inputs = {"lexicon": file_input(args.lexicon), "text": file_input(args.text)}
    if args.topology:
        inputs["topology"] = file_input(args.topology)
    names = ("unknown_word", "oov", "silence_probability", "max_oov_share")
    options = {name: getattr(args, name) for name in names}
    # By its name a lexicon holds probabilities.
    options["lexicon"] = args.lexicon.name
    stage = Stage("hybrid-lang", args.output, MADE, inputs, options)
    if not stage.begin(print):
        return 0
    unknown = prepare_lang(
        args.lexicon,
        args.output,
        read_transcripts(args.text),
        args.unknown_word,
        args.oov,
        args.silence_probability,
        args.topology,
        args.max_oov_share,
    )
    stage.finish()
    if unknown:
        print(
            f"{args.output}/oov_counts.txt: {len(unknown)} words without pronunciation, "
            f"{sum(unknown.values())} times in all, are mapped to {args.unknown_word}"
        )
    print(f"written: {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("hybrid-lang", main))
