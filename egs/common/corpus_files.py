"""What the data preparation of all recipes has in common: fetching archives, writing data folders."""

from __future__ import annotations

import shutil
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from espnet_quant4.text_files import TextFileError, read_lines


class Row(NamedTuple):
    """An utterance in the tables of a data folder.

    Attributes:
        audio: the file.
        text: words.
        speaker: name.
    """

    audio: Path
    text: str
    speaker: str


def download(url: str, target: Path) -> None:
    """Fetch a file; an interrupted download leaves no ``target``."""
    partial = target.with_suffix(".part")
    with urllib.request.urlopen(url) as response, open(partial, "wb") as output:
        shutil.copyfileobj(response, output)
    partial.rename(target)


def write_data_folder(folder: Path, rows: Mapping[str, Row]) -> None:
    """Write wav.scp, text, utt2spk and spk2utt."""
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted(rows)
    speakers: dict[str, list[str]] = {}
    for name in names:
        speakers.setdefault(rows[name].speaker, []).append(name)
    tables = {
        "wav.scp": [f"{name} {rows[name].audio}" for name in names],
        "text": [f"{name} {rows[name].text}" for name in names],
        "utt2spk": [f"{name} {rows[name].speaker}" for name in names],
        "spk2utt": [f"{speaker} {' '.join(own)}" for speaker, own in sorted(speakers.items())],
    }
    for table, lines in tables.items():
        (folder / table).write_text("\n".join(lines) + "\n", encoding="utf-8")


def lines_of(path: Path) -> list[str]:
    """Return the lines of a corpus's text file.

    Raises:
        SystemExit: for a file that is not text in UTF-8, with its line.
    """
    try:
        return read_lines(path)
    except TextFileError as error:
        raise SystemExit(str(error)) from error
