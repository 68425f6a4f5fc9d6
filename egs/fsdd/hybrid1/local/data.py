#!/usr/bin/env python3
"""Prepare strings of digits from the Free Spoken Digit Dataset as Kaldi-style data folders.

Corpus: single digits, 50 recordings of each by each speaker, 8 kHz, trimmed; CC BY-SA 4.0
(https://github.com/Jakobovski/free-spoken-digit-dataset).

**The strings are artificial.** Nobody spoke them: each is a concatenation of three to seven single
recordings of one speaker, with 50 to 250 ms between them of that speaker's own recording noise
(`strings.py`). What connected speech adds - coarticulation, one intonation, one loudness - is not in
them, so error rates say nothing about connected digits of real speakers.

Sources, the first that is there: ``--fsdd`` (or the environment variable FSDD), a folder with
``DIGIT_SPEAKER_INDEX.wav`` or ``.flac``, itself or in ``recordings/``, or ``recordings.tar`` with
these; a folder ``shared/data/fsdd`` beside the checkout; with ``--download true`` the project's
archive from GitHub.

Written: ``DATA/{train,dev,test,test_unseen}/{wav.scp,text,utt2spk,spk2utt}`` with the audio in
``audio/``, and ``DATA/local/dict/lexicon.txt``. test holds recordings 0 to 4 of every digit, the data
set's own test part; dev holds recordings 5 to 9; train the rest, each in two strings.
test_unseen holds all recordings of one speaker (``--unseen_speaker``) who is in no other part. No
recording, and no noise from it, is in two parts; the speakers of dev and test are those of train.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import sys
import tarfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

# The scripts of recipes are no package.
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "common"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import corpus_files
from corpus_files import Row, write_data_folder
from strings import Digit, concatenate, draw_strings, noise_pieces

URL = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.tar.gz"
RECIPE = Path(__file__).resolve().parents[1]
SAMPLING_RATE = 8000
WORDS = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")
NAME = re.compile(r"(\d)_([a-z]+)_(\d+)\.(?:wav|flac)")
# In how many strings a recording is. Tests have each once: errors on copies are not independent.
STRINGS_A_RECORDING = {"train": 2, "dev": 1, "test": 1, "test_unseen": 1}


def part_of(index: int) -> str:
    """Return the part of a recording by its number."""
    return "test" if index < 5 else "dev" if index < 10 else "train"


def find_recordings(folder: Path, downloads: Path) -> list[Path]:
    """Return the recordings of a folder or tar file, which is unpacked under ``downloads``."""
    archive = folder if folder.suffix == ".tar" else folder / "recordings.tar"
    if archive.is_file():
        downloads.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as tar:
            tar.extractall(downloads, filter="data")
        folder = downloads
    found: list[Path] = []
    for place in (folder / "recordings", folder):
        if not found and place.is_dir():
            found = sorted(path for path in place.iterdir() if NAME.fullmatch(path.name))
    return found


def download(downloads: Path) -> Path:
    """Fetch and unpack the project's archive; return its folder."""
    downloads.mkdir(parents=True, exist_ok=True)
    archive = downloads / URL.rsplit("/", 1)[1]
    if not archive.exists():
        corpus_files.download(URL, archive)
    with tarfile.open(archive) as tar:
        folder = downloads / tar.getnames()[0].partition("/")[0]
        tar.extractall(downloads, filter="data")
    return folder


def read_digits(paths: list[Path]) -> list[Digit]:
    """Read recordings.

    Raises:
        ValueError: names the first that is no 8 kHz mono audio, and how many there are.
    """
    digits, bad = [], []
    for path in tqdm(paths, desc="read"):
        digit, speaker, index = NAME.fullmatch(path.name).groups()  # type: ignore[union-attr]
        try:
            audio, rate = soundfile.read(path, dtype="float32")
        except (OSError, soundfile.SoundFileError) as error:
            bad.append(f"{path}: {error}")
            continue
        if rate != SAMPLING_RATE or audio.ndim != 1 or not len(audio):
            bad.append(f"{path}: {rate} Hz, shape {audio.shape}; expected {SAMPLING_RATE} Hz mono")
            continue
        digits.append(Digit(int(digit), speaker, int(index), audio))
    if bad:
        raise ValueError(f"{len(bad)} of {len(paths)} recordings are unusable, the first: {bad[0]}")
    return digits


def load_corpus(args: argparse.Namespace) -> list[Digit] | None:
    """Read the corpus from the first source that is there and sound; None if there is none."""
    given = args.fsdd or os.environ.get("FSDD")
    # What was named is what is meant: no other corpus in its place.
    candidates = (
        [Path(given)]
        if given
        else [
            *(parent / "shared" / "data" / "fsdd" for parent in RECIPE.parents),
            *sorted(args.downloads.glob("free-spoken-digit-dataset-*/")),
        ]
    )
    for folder in candidates:
        paths = find_recordings(folder, args.downloads)
        if not paths:
            continue
        try:
            return read_digits(paths)
        except ValueError as error:
            print(f"{folder}: {error}", file=sys.stderr)
    if given:
        print(f"{given}: no usable DIGIT_SPEAKER_INDEX.wav or .flac there", file=sys.stderr)
        return None
    if args.download != "true":
        return None
    return read_digits(find_recordings(download(args.downloads), args.downloads))


def write_strings(folder: Path, part: str, digits: list[Digit], seed: int) -> dict[str, Row]:
    """Write the strings of one part as WAV; returns rows by utterance.

    Names end with a checksum of the audio, so that what was made from a string of another seed or
    corpus is never taken for this one's.
    """
    audio = folder / "audio"
    audio.mkdir(parents=True, exist_ok=True)
    by_speaker: dict[str, list[Digit]] = defaultdict(list)
    for digit in digits:
        by_speaker[digit.speaker].append(digit)
    utterances = {}
    for speaker in tqdm(sorted(by_speaker), desc=part):
        # One generator a speaker and part: adding a speaker leaves the others' strings alone.
        random = np.random.default_rng([seed, *f"{part} {speaker}".encode()])
        pieces = noise_pieces(by_speaker[speaker], SAMPLING_RATE)
        strings = draw_strings(by_speaker[speaker], STRINGS_A_RECORDING[part], random)
        for number, string in enumerate(strings):
            samples = concatenate([d.audio for d in string], pieces, SAMPLING_RATE, random)
            name = f"{speaker}-{part}-{number:04d}-{hashlib.sha256(samples).hexdigest()[:8]}"
            path = (audio / f"{name}.wav").resolve()
            if not path.exists():
                partial = path.with_suffix(".part")
                soundfile.write(partial, samples, SAMPLING_RATE, subtype="PCM_16", format="WAV")
                partial.rename(path)
            utterances[name] = Row(path, " ".join(WORDS[d.digit] for d in string), speaker)
    for path in audio.glob("*.wav"):
        if path.stem not in utterances:
            path.unlink()
    return utterances


def main() -> int:
    """Write the data folders and the lexicon."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fsdd", help="folder or recordings.tar of the corpus")
    parser.add_argument("--download", choices=["true", "false"], default="false")
    parser.add_argument("--downloads", type=Path, default=Path("downloads"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--unseen_speaker", default="yweweler", help="is in test_unseen only")
    parser.add_argument("--seed", type=int, default=1, help="of the strings")
    args = parser.parse_args()
    digits = load_corpus(args)
    if digits is None:
        print(
            "The Free Spoken Digit Dataset was not found. Name its folder (--local_data_opts "
            f"'--fsdd DIR' or FSDD=DIR), or allow the download from {URL} (--local_data_opts "
            "'--download true').",
            file=sys.stderr,
        )
        return 1
    speakers = sorted({d.speaker for d in digits})
    if args.unseen_speaker not in speakers or len(speakers) < 2:
        print(
            f"--unseen_speaker {args.unseen_speaker}; valid: one of {', '.join(speakers)}, of at "
            "least two",
            file=sys.stderr,
        )
        return 1
    parts: dict[str, list[Digit]] = {part: [] for part in STRINGS_A_RECORDING}
    for digit in digits:
        unseen = digit.speaker == args.unseen_speaker
        parts["test_unseen" if unseen else part_of(digit.index)].append(digit)
    for part, members in parts.items():
        if not members:
            print(f"no recording for {part} among {len(digits)}", file=sys.stderr)
            return 1
        utterances = write_strings(args.data / part, part, members, args.seed)
        write_data_folder(args.data / part, utterances)
        words = sum(len(row.text.split()) for row in utterances.values())
        people = len({row.speaker for row in utterances.values()})
        print(f"{part}: {len(utterances)} strings, {words} digits, {people} speakers")
    dictionary = args.data / "local" / "dict"
    dictionary.mkdir(parents=True, exist_ok=True)
    shutil.copy2(RECIPE / "local" / "lexicon.txt", dictionary / "lexicon.txt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
