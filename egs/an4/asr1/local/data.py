#!/usr/bin/env python3
"""Prepare CMU AN4 as Kaldi-style data folders.

Corpus: the alphanumeric database of Carnegie Mellon University, 1991: spelled names, numbers and
commands, 74 training and 10 test speakers, 16 kHz. Free for any use.

Sources, the first that is there: ``--an4`` (or the environment variable AN4), which may be the
original distribution (``etc/an4_train.transcription``, ``wav/an4_clstk``) or a folder with
``train.tsv``, ``test.tsv`` (columns utt, speaker, text) and FLAC files as ``audio.tar``; a folder
``shared/data/an4`` beside the checkout; with ``--download true`` the original distribution from
CMU.

Written: ``DATA/{train,dev,test}/{wav.scp,text,utt2spk,spk2utt}``. test is the corpus's own test
part. dev is cut from train by speaker, two women and four men, so that no speaker is in both.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

# The scripts of recipes are no package.
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "common"))
import corpus_files
from corpus_files import Row, lines_of, write_data_folder

URL = "http://www.speech.cs.cmu.edu/databases/an4/an4_sphere.tar.gz"
DISTRIBUTION_MARK = "etc/an4_train.transcription"
RECIPE = Path(__file__).resolve().parents[1]
# Names begin with the speaker's sex: a tenth of the women and of the men.
DEV_SPEAKERS = {"fash", "flrp", "mblw", "meab", "mjjs2", "mrab"}


@dataclass
class Utterance:
    """One recording: its speaker, text in upper case, and audio file."""

    speaker: str
    text: str
    audio: Path


def read_folder_of_tables(folder: Path, downloads: Path) -> dict[str, dict[str, Utterance]]:
    """Read ``train.tsv`` and ``test.tsv``; unpack ``audio.tar`` under ``downloads``."""
    audio = downloads / "audio"
    if not audio.is_dir():
        downloads.mkdir(parents=True, exist_ok=True)
        with tarfile.open(folder / "audio.tar") as archive:
            archive.extractall(downloads, filter="data")
    parts: dict[str, dict[str, Utterance]] = {}
    for part in ("train", "test"):
        parts[part] = {}
        table = folder / f"{part}.tsv"
        for number, line in enumerate(lines_of(table)[1:], 2):
            columns = line.split("\t")
            if len(columns) != 3:
                raise SystemExit(
                    f"{table}:{number}: {len(columns)} columns; valid are three, between tabs: utt, "
                    "speaker, text"
                )
            name, speaker, text = columns
            path = audio / part / speaker / f"{name}.flac"
            parts[part][name] = Utterance(speaker, text, path)
    return parts


def read_distribution(folder: Path) -> dict[str, dict[str, Utterance]]:
    """Read CMU's own layout: transcription files and NIST SPHERE or raw audio."""
    parts: dict[str, dict[str, Utterance]] = {}
    for part, sub_folder in (("train", "an4_clstk"), ("test", "an4test_clstk")):
        parts[part] = {}
        for line in lines_of(folder / "etc" / f"an4_{part}.transcription"):
            match = re.fullmatch(r"(.*)\(([^()]+)\)\s*", line)
            if match is None:
                continue
            text = re.sub(r"</?s>", " ", match.group(1))
            # an406-fcaw-b: number, speaker, letter of the recording's series
            name = match.group(2)
            speaker = name.split("-")[1]
            path = folder / "wav" / sub_folder / speaker / f"{name}.sph"
            parts[part][name] = Utterance(speaker, " ".join(text.split()), path)
    return parts


def download(downloads: Path) -> Path:
    """Fetch and unpack the original distribution; return its folder."""
    downloads.mkdir(parents=True, exist_ok=True)
    archive = downloads / URL.rsplit("/", 1)[1]
    if not archive.exists():
        corpus_files.download(URL, archive)
    with tarfile.open(archive) as tar:
        tar.extractall(downloads, filter="data")
    return downloads / "an4"


def find_folder(args: argparse.Namespace) -> Path | None:
    """Return the folder of the first source that is there; download it where that is allowed."""
    given = args.an4 or os.environ.get("AN4")
    # A folder that was named is the one that is meant: no other corpus in its place.
    candidates = (
        [Path(given)]
        if given
        else [
            *(parent / "shared" / "data" / "an4" for parent in RECIPE.parents),
            args.downloads / "an4",
        ]
    )
    for folder in candidates:
        if any((folder / name).is_file() for name in ("train.tsv", DISTRIBUTION_MARK)):
            return folder
    if given:
        print(f"{given}: neither train.tsv nor {DISTRIBUTION_MARK} is there", file=sys.stderr)
        return None
    return download(args.downloads) if args.download == "true" else None


def say_not_found() -> None:
    """Tell what can be done about a corpus that was not found."""
    print(
        "AN4 was not found. Name its folder (--local_data_opts '--an4 DIR' or AN4=DIR), or "
        f"allow the download from {URL} (--local_data_opts '--download true').",
        file=sys.stderr,
    )


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the options, which other recipes on this corpus share."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--an4", help="folder of the corpus")
    parser.add_argument("--download", choices=["true", "false"], default="false")
    parser.add_argument("--downloads", type=Path, default=Path("downloads"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    return parser


def main() -> int:
    """Write the data folders."""
    args = get_parser().parse_args()
    folder = find_folder(args)
    if folder is None:
        say_not_found()
        return 1
    if (folder / "train.tsv").is_file():
        corpus = read_folder_of_tables(folder, args.downloads)
    else:
        corpus = read_distribution(folder)
    missing = [u.audio for part in corpus.values() for u in part.values() if not u.audio.is_file()]
    if missing:
        print(f"{len(missing)} audio files are missing, the first: {missing[0]}", file=sys.stderr)
        return 1
    parts = {
        "train": {n: u for n, u in corpus["train"].items() if u.speaker not in DEV_SPEAKERS},
        "dev": {n: u for n, u in corpus["train"].items() if u.speaker in DEV_SPEAKERS},
        "test": corpus["test"],
    }
    for part, utterances in parts.items():
        # The speaker stands in front of the name.
        rows = {
            f"{u.speaker}-{name}": Row(u.audio.resolve(), u.text, u.speaker)
            for name, u in utterances.items()
        }
        write_data_folder(args.data / part, rows)
        words = sum(len(u.text.split()) for u in utterances.values())
        people = len({u.speaker for u in utterances.values()})
        print(f"{part}: {len(utterances)} utterances, {words} words, {people} speakers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
