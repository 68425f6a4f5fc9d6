#!/usr/bin/env python3
"""Prepare the Asterisk core sounds (English) as Kaldi-style data folders.

Corpus: 568 telephone prompts (8 kHz, 16 bit, about 25 minutes) read by one professional speaker,
Allison Smith, for the Asterisk telephone exchange, version 1.6.1. Licence: CC BY-SA 3.0.
Source: Debian's packages ``asterisk-core-sounds-en-wav`` (audio) and ``asterisk-core-sounds-en``
(transcripts); without apt, the upstream archive of the same version.

Written: ``DATA/{train,dev,test}/{wav.scp,text,utt2spk,spk2utt}``.

The split is fixed and by whole sentences: prompts that share any sentence form one group, and a
group goes to one part as a whole. Only groups whose prompts all have 3 to 40 words can go to dev
or test: a lone letter, digit or name is recorded once, so it teaches its word and tests none, and a
single prompt of a minute would outweigh the rest. Groups are drawn in the order of a hash.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

# The scripts of recipes are no package.
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "common"))
import corpus_files
from corpus_files import Row, write_data_folder

SPEAKER = "allison"
PACKAGES = ("asterisk-core-sounds-en-wav", "asterisk-core-sounds-en")
UPSTREAM_URL = (
    "https://downloads.asterisk.org/pub/telephony/sounds/releases/"
    "asterisk-core-sounds-en-wav-1.6.1.tar.gz"
)
WORDS_OF_A_TESTABLE_PROMPT = range(3, 41)
WORDS_WANTED = {"test": 380, "dev": 230}

# How the speaker reads what the transcript writes in digits and signs.
SPOKEN = {
    "28.8": "twenty eight point eight",
    "8500": "eighty five hundred",
    "4242": "four two four two",
    "1234": "one two three four",
    "500": "five hundred",
    "600": "six hundred",
    "10": "ten",
    "h.323": "h three two three",
    "3d": "three d",
    "*": " star ",
    "#": " pound ",
}
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def normalize_text(transcript: str) -> str:
    """Return the transcript in lower case, spoken form: letters, apostrophes, single spaces.

    Notes in brackets (``at [@]``, ``[sound of monkeys screaming]``) are dropped, so what is no
    speech becomes an empty string.
    """
    text = re.sub(r"\[[^\]]*\]?|\([^)]*\)?|<[^>]*>?", " ", transcript.lower())
    for written, spoken in SPOKEN.items():
        text = text.replace(written, spoken)
    text = re.sub(r"\d", lambda digit: f" {DIGITS[int(digit.group())]} ", text)
    return " ".join(re.sub(r"[^a-z']+", " ", text).replace(" '", " ").split())


def sentences_of(transcript: str) -> set[str]:
    """Return the normalized sentences of a prompt (it may hold several)."""
    pieces = (normalize_text(piece) for piece in re.split(r"[.?!;:]+\s", transcript + " "))
    return {piece for piece in pieces if piece}


def group_by_shared_sentence(transcripts: dict[str, str]) -> list[list[str]]:
    """Return prompt names in groups: two prompts that share a sentence are in the same one."""
    parent = {name: name for name in transcripts}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    first_with: dict[str, str] = {}
    for name in sorted(transcripts):
        for sentence in sentences_of(transcripts[name]):
            parent[root(name)] = root(first_with.setdefault(sentence, name))
    groups = defaultdict(list)
    for name in sorted(transcripts):
        groups[root(name)].append(name)
    return list(groups.values())


def split_groups(groups: Iterable[list[str]], texts: dict[str, str]) -> dict[str, list[str]]:
    """Return ``{part: prompt names}``, filling test, then dev, then train."""

    def draw(group: list[str]) -> str:
        return hashlib.sha256("\n".join(sorted(texts[name] for name in group)).encode()).hexdigest()

    parts: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    missing = dict(WORDS_WANTED)
    for group in sorted(groups, key=draw):
        counts = [len(texts[name].split()) for name in group]
        part = "train"
        if all(count in WORDS_OF_A_TESTABLE_PROMPT for count in counts):
            part = next((part for part, words in missing.items() if words >= sum(counts)), "train")
        if part != "train":
            missing[part] -= sum(counts)
        parts[part] += group
    return parts


def read_transcripts(path: Path) -> dict[str, str]:
    """Return ``{prompt name: transcript}`` from ``core-sounds-en.txt`` (plain or gzip)."""
    opener = gzip.open if path.suffix == ".gz" else open
    transcripts = {}
    with opener(path, "rt", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if not line.startswith(";") and ":" in line:
                name, text = line.split(":", 1)
                transcripts[name.strip()] = text.strip()
    return transcripts


def fetch(downloads: Path) -> None:
    """Put the unpacked corpus under ``downloads``: by apt where there is apt, else by URL."""
    downloads.mkdir(parents=True, exist_ok=True)
    if shutil.which("apt-get") and shutil.which("dpkg"):
        command = ["apt-get", "download", "-qq", *PACKAGES]
        if subprocess.run(command, cwd=downloads, stderr=subprocess.DEVNULL).returncode:
            # A fresh machine has no package lists yet.
            subprocess.run(["apt-get", "update", "-qq"], check=False)
            subprocess.run(command, cwd=downloads, check=False)
        packages = sorted(downloads.glob("*.deb"))
        if len(packages) >= len(PACKAGES):
            for package in packages:
                subprocess.run(["dpkg", "-x", package, downloads], check=True)
            return
        print(f"apt-get download {' '.join(PACKAGES)} failed; trying {UPSTREAM_URL}")
    archive = downloads / UPSTREAM_URL.rsplit("/", 1)[1]
    corpus_files.download(UPSTREAM_URL, archive)
    with tarfile.open(archive) as tar:
        tar.extractall(downloads, filter="data")


def find_corpus(downloads: Path) -> tuple[Path, Path] | None:
    """Return (folder of the audio, file of the transcripts), or None where there are none yet."""
    audio = next(iter(sorted(downloads.rglob("activated.wav"))), None)
    text = next(iter(sorted(downloads.rglob("core-sounds-en.txt*"))), None)
    return (audio.parent, text) if audio and text else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--downloads", type=Path, default=Path("downloads"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    args = parser.parse_args()

    corpus = find_corpus(args.downloads)
    if corpus is None:
        fetch(args.downloads)
        corpus = find_corpus(args.downloads)
    if corpus is None:
        print(
            f"No Asterisk core sounds under {args.downloads.resolve()}: neither apt-get nor "
            f"{UPSTREAM_URL} gave them. Unpack that archive there by hand and start again.",
            file=sys.stderr,
        )
        return 1
    audio_folder, text_file = corpus

    transcripts = read_transcripts(text_file)
    spoken = {name: text for name, text in transcripts.items() if normalize_text(text)}
    present = {n: t for n, t in spoken.items() if (audio_folder / f"{n}.wav").is_file()}
    print(
        f"{len(transcripts)} transcripts; left out: {len(transcripts) - len(spoken)} tones or "
        f"silence, {len(spoken) - len(present)} without audio"
    )

    texts = {name: normalize_text(transcript) for name, transcript in present.items()}
    for part, names in split_groups(group_by_shared_sentence(present), texts).items():
        utterances = {
            f"{SPEAKER}-{name.replace('/', '-')}": Row(
                (audio_folder / f"{name}.wav").resolve(), texts[name], SPEAKER
            )
            for name in names
        }
        write_data_folder(args.data / part, utterances)
        words = sum(len(row.text.split()) for row in utterances.values())
        print(f"{part}: {len(utterances)} utterances, {words} words")
    return 0


if __name__ == "__main__":
    sys.exit(main())
