"""Plain text files that several parts of a hybrid system read and write."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines; an interrupted run leaves no half file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    partial.replace(path)


def read_table(path: Path) -> dict[str, str]:
    """Read a table of a data folder: a key and a value a line.

    Environment variables in the values are replaced; keys without a value are left out.
    """
    rows = (line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines())
    return {row[0]: os.path.expandvars(row[1].strip()) for row in rows if len(row) == 2}


def read_symbols(path: Path) -> dict[str, int]:
    """Read a symbol table: symbol and number a line."""
    rows = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {symbol: int(number) for symbol, number in rows}


def write_symbols(path: Path, symbols: dict[str, int]) -> None:
    """Write a symbol table."""
    write_lines(path, [f"{symbol} {number}" for symbol, number in symbols.items()])
