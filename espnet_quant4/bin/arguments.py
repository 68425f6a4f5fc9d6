"""Checks of arguments that several commands share: made before the work, which may take hours."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    """Return a ``type`` for argparse that takes whole numbers from `low` on, up to `high` if given."""
    valid = f"{low:,} and above" if high is None else f"{low:,} to {high:,}"

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if number < low or (high is not None and number > high):
            raise argparse.ArgumentTypeError(f"{text!r}: valid are whole numbers, {valid}")
        return number

    return parse


def refuse_twice(option: str, values: Sequence[Any]) -> None:
    """Raise ValueError where an option has the same value twice, which would count it twice."""
    twice = [str(value) for number, value in enumerate(values) if value in values[:number]]
    if twice:
        raise ValueError(f"{option}: {twice[0]} is given twice; name each once")


def require_file_output(option: str, path: Path | None) -> None:
    """Raise ValueError where no file can be written at a path; None passes."""
    if path is None:
        return
    if path.is_dir():
        raise ValueError(
            f"{option} {path}: is a folder; name a file in it, such as {path}/out.json"
        )
    require_folder_output(option, path.absolute().parent)


def require_folder_output(option: str, folder: Path | None) -> None:
    """Raise ValueError where a folder can neither be written to nor made; None passes."""
    if folder is None:
        return
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise ValueError(f"{option} {folder}: {there} is a file; name a place in a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(
            f"{option} {folder}: {there} cannot be written to; choose another place, or change its "
            "permissions"
        )
