"""Prepare Switchboard-1, Hub5 2000 and, if wanted, Fisher and RT-03 as Kaldi-style data folders.

Corpora are the LDC's, under its licences: Switchboard-1 release 2 (LDC97S62) with the transcripts of
ISIP; Hub5 2000 (audio LDC2002S09, transcripts LDC2002T43); Fisher English (LDC2004S13, LDC2005S13,
LDC2004T19, LDC2005T19); RT-03 (LDC2007S10).  Names of folders are those of ESPnet's egs2/swbd.

Written under --data: train_nodup, train_dev, eval2000 (with stm and glm for NIST's scoring), and
train_fisher, rt03 where these corpora are given; local/dict/lexicon.txt; nlsyms.txt, the noises;
local/left_out.tsv, all that was left out, and by which rule.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from espnet_quant4.bin.arguments import require_folder_output, whole_number
from espnet_quant4.bin.command import run_command
from espnet_quant4.extras import install_command

if TYPE_CHECKING:
    from espnet_quant4.corpora.switchboard.findings import Findings
    from espnet_quant4.corpora.switchboard.utterances import Utterance

FISHER = ("LDC2004S13", "LDC2005S13", "LDC2004T19", "LDC2005T19")
TRUE_FALSE = ("true", "false")


def get_parser() -> argparse.ArgumentParser:
    """Return the options."""
    parser = argparse.ArgumentParser(
        prog="espnet-quant4 prepare-switchboard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    where = parser.add_argument_group("corpora")
    where.add_argument(
        "--corpora", type=Path, help="folder that holds the LDC's folders under their numbers"
    )
    where.add_argument("--swbd", type=Path, help="LDC97S62; default: that of --corpora")
    where.add_argument(
        "--transcripts",
        type=Path,
        help="swb_ms98_transcriptions; default: that in --corpora, in --swbd or in DATA/local",
    )
    where.add_argument(
        "--download_transcripts",
        choices=TRUE_FALSE,
        default="false",
        help="fetch them from ISIP into DATA/local where they are missing",
    )
    where.add_argument("--speakers", type=Path, help="conv_tab.csv; else a side is a speaker")
    where.add_argument("--eval2000_audio", type=Path, help="LDC2002S09; default: as above")
    where.add_argument("--eval2000_text", type=Path, help="LDC2002T43; default: as above")
    where.add_argument("--fisher", type=Path, nargs="+", help="all folders of Fisher, if wanted")
    where.add_argument("--rt03", type=Path, help="LDC2007S10, if wanted")
    where.add_argument("--allow_incomplete", choices=TRUE_FALSE, default="false")
    output = parser.add_argument_group("output")
    output.add_argument("--data", type=Path, default=Path("data"))
    output.add_argument("--audio", type=Path, help="for WAV files; default DATA/local/audio")
    output.add_argument("--train_set", default="train_nodup", help="folder of the training part")
    output.add_argument("--dev_set", default="train_dev", help="folder of the development part")
    output.add_argument(
        "--segments",
        choices=TRUE_FALSE,
        default="true",
        help="true: a file for each side of a call, and segments; false: one for each utterance",
    )
    output.add_argument(
        "--nj", type=whole_number(1), default=2, help="calls whose audio is written at a time"
    )
    output.add_argument(
        "--dry_run", choices=TRUE_FALSE, default="false", help="true: read and check; write nothing"
    )
    rules = parser.add_argument_group("rules")
    rules.add_argument("--dev_utterances", type=whole_number(1), default=4000)
    rules.add_argument(
        "--max_duplicates", type=whole_number(1), default=300, help="of a text in training"
    )
    rules.add_argument("--noises", choices=("keep", "remove"), default="keep")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    args = get_parser().parse_args(arguments)
    try:
        prepare(args)
    except ModuleNotFoundError as error:
        hint = f"install it with: {install_command('swbd')}"
        raise ModuleNotFoundError(f"{error}; {hint}", name=error.name) from error
    return 0


def prepare(args: argparse.Namespace) -> None:
    """Prepare all that `args` names.

    Raises:
        CorpusError: if a corpus cannot be prepared.
        ValueError, OSError: if files cannot be read or written.
    """
    from espnet_quant4.corpora.switchboard import dictionary, fisher, hub5, split, swbd1
    from espnet_quant4.corpora.switchboard.data_folder import (
        require_room,
        write_audio,
        write_data_folder,
    )
    from espnet_quant4.corpora.switchboard.findings import Findings, write_findings
    from espnet_quant4.corpora.switchboard.normalize import NOISES
    from espnet_quant4.text_files import write_lines, write_text

    segments = args.segments == "true"
    allow_incomplete = args.allow_incomplete == "true"
    audio = args.audio or args.data / "local" / "audio"
    every: list[Findings] = []

    def findings(corpus: str) -> Findings:
        every.append(Findings(corpus))
        return every[-1]

    if args.train_set == args.dev_set:
        raise ValueError(
            f"--train_set and --dev_set are both {args.train_set}; give them two names"
        )
    require_folder_output("--data", args.data)
    require_folder_output("--audio", audio)
    swbd, eval_audio, eval_text, transcripts = _folders(args)
    persons = swbd1.read_speakers(args.speakers) if args.speakers else None

    # What is smallest first: a wrong folder shows before hours of work.
    found = findings("eval2000")
    evaluations = {"eval2000": (hub5.prepare_eval2000(eval_audio, eval_text, found), found)}
    if args.rt03:
        found = findings("rt03")
        evaluations["rt03"] = hub5.prepare_rt03(args.rt03, found), found
    found = findings("swbd")
    utterances, entries = swbd1.prepare_swbd1(
        swbd, transcripts, found, persons, args.noises, allow_incomplete
    )
    train, dev = split.split(utterances, found, args.dev_utterances)
    train = split.cap_duplicates(train, found, args.max_duplicates)
    parts = {args.train_set: (train, found), args.dev_set: (dev, found)}
    if args.fisher:
        found = findings("fisher")
        conversations = fisher.prepare_fisher(args.fisher, found, args.noises, allow_incomplete)
        parts["train_fisher"] = conversations, found
    for name, (evaluation, found) in evaluations.items():
        parts[name] = evaluation.utterances, found

    everything = [each for part, _ in parts.values() for each in part]
    size = require_room(everything, audio, segments)
    if args.dry_run == "true":
        _print(every, {args.data / name: part for name, (part, _) in parts.items()})
        print(f"would write {size / 1e9:.1f} GB of audio to {audio}")
        return
    written = {}
    for name, (part, found) in parts.items():
        written[name] = write_audio(part, audio, found, segments, args.nj)
        write_data_folder(args.data / name, written[name], audio, segments)
    for name, (evaluation, found) in evaluations.items():
        folder = args.data / name
        write_text(folder / "stm", evaluation.stm.format())
        write_text(folder / "glm", evaluation.glm)
        found.notes += [f"STM: {number} {what}" for what, number in evaluation.stm.repairs.items()]
    write_lines(args.data / "local" / "dict" / "lexicon.txt", dictionary.lexicon(entries))
    write_lines(args.data / "nlsyms.txt", NOISES if args.noises == "keep" else ())
    write_findings(args.data / "local" / "left_out.tsv", every)
    _print(every, {args.data / name: part for name, part in written.items()})
    print(f"all that was left out: {args.data / 'local' / 'left_out.tsv'}")


def _print(every: Sequence[Findings], parts: Mapping[Path, Sequence[Utterance]]) -> None:
    """Print what was found and what the parts hold."""
    for each in every:
        print(*each.lines(), sep="\n")
    for folder, part in parts.items():
        hours = sum(one.end - one.start for one in part) / 3600
        speakers = len({one.speaker for one in part})
        print(f"{folder}: {len(part)} utterances, {hours:.2f} h, {speakers} speakers")


def _folders(args: argparse.Namespace) -> tuple[Path, Path, Path, Path]:
    """Return the folders of Switchboard-1, Hub5 2000's audio and text, and the ISIP transcripts.

    They are there, and so are those of Fisher and RT-03: a missing one must not show after hours.
    """
    from espnet_quant4.corpora.switchboard import fisher, hub5, swbd1
    from espnet_quant4.corpora.switchboard.findings import require_folder

    holds = "LDC97S62, LDC2002S09 and LDC2002T43 (SWBD in ESPnet's db.sh)"
    if args.corpora is not None:
        require_folder(args.corpora, "--corpora", f"It is the folder that holds {holds}.")
    found = []
    for option, number, what, layout in (
        ("swbd", "LDC97S62", "Switchboard-1 audio", swbd1.AUDIO_LAYOUT),
        ("eval2000_audio", "LDC2002S09", "Hub5 2000 audio", hub5.EVAL2000_AUDIO),
        ("eval2000_text", "LDC2002T43", "Hub5 2000 transcripts", hub5.EVAL2000_TEXT),
    ):
        path = getattr(args, option) or (args.corpora and Path(args.corpora, number))
        if path is None:
            raise ValueError(
                f"--{option} is not given. Name {number}, or with --corpora the folder that holds "
                f"{holds}."
            )
        found.append(require_folder(path, what, f"{layout} Name it with --{option}."))
    for path in args.fisher or ():
        require_folder(path, "--fisher", fisher.LAYOUT)
    if args.rt03:
        require_folder(args.rt03, "--rt03", hub5.RT03_LAYOUT)
    swbd, audio, text = found
    if args.transcripts is not None:
        transcripts = require_folder(args.transcripts, "--transcripts", swbd1.TRANSCRIPT_LAYOUT)
    else:
        transcripts = _transcripts(args, swbd)
    return swbd, audio, text, transcripts


def _transcripts(args: argparse.Namespace, swbd: Path) -> Path:
    """Return the folder of the ISIP transcripts where none is given."""
    from espnet_quant4.corpora.switchboard import swbd1
    from espnet_quant4.corpora.switchboard.findings import CorpusError

    folders = [folder for folder in (args.corpora, swbd, args.data / "local") if folder]
    if found := swbd1.find_transcripts(folders):
        return found
    if args.download_transcripts == "true":
        return swbd1.download_transcripts(args.data / "local")
    raise CorpusError(
        f"no {swbd1.TRANSCRIPTS} in {', '.join(map(str, folders))}. {swbd1.TRANSCRIPT_LAYOUT} Or "
        "name it with --transcripts."
    )


if __name__ == "__main__":
    sys.exit(run_command("prepare-switchboard", main))
