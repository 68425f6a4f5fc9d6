"""Text files that users write: read with encoding, byte-order mark and line ends in mind.

Every part of the package that reads a text file reads it here, so that all of them take and refuse the
same, and name file and line.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


class TextFileError(ValueError):
    """A text file that cannot be read; names the file, the line and what to do."""


def read_text(path: str | Path, fallback: str | None = None) -> str:
    """Return a text file's content, without byte-order mark and with ``\\n`` as line end.

    Args:
        path: a file in UTF-8.
        fallback: encoding of files that are no UTF-8, such as ``latin-1``; a warning says that it was
            taken. None refuses them.

    Raises:
        TextFileError: for a folder, for a file in another encoding or with NUL bytes.
        OSError: for a file that cannot be opened.
    """
    path = Path(path)
    if path.is_dir():
        raise TextFileError(f"{path}: is a folder; a text file is wanted here.")
    return decode_text(path.read_bytes(), path, fallback)


def decode_text(content: bytes, path: str | Path, fallback: str | None = None) -> str:
    """Return the text of a file's content, as `read_text` does; for files that were compressed.

    Args:
        content: what the file holds.
        path: its name, for messages.
        fallback: as of `read_text`.

    Raises:
        TextFileError: for another encoding or NUL bytes.
    """
    path = Path(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = f"{path}:{line}: byte 0x{content[error.start]:02x} is not UTF-8"
        if fallback is None:
            raise TextFileError(
                f"{found}. Convert the file first, such as by: "
                f"iconv -f latin1 -t utf-8 {path.name} > {path.name}.utf8"
            ) from error
        logging.warning(f"{found}; the file is read as {fallback}.")
        text = content.decode(fallback)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise TextFileError(
            f"{path}:{line}: holds NUL bytes, as binary files and UTF-16 do; valid is text in UTF-8."
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: str | Path, fallback: str | None = None) -> list[str]:
    """Return the lines of a text file; see `read_text`.

    Only line feeds end a line: ``str.splitlines`` also cuts at characters that may stand in a text.
    """
    return split_lines(read_text(path, fallback))


def split_lines(text: str) -> list[str]:
    """Return the lines of a text, which only line feeds end."""
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return lines


def read_json(path: str | Path) -> Any:
    """Return a JSON file's content.

    Raises:
        TextFileError: for what is not JSON, with its line, or has a key twice; else as `read_text`.
    """
    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=_each_once)
    except json.JSONDecodeError as error:
        raise TextFileError(f"{path}:{error.lineno}: not valid JSON: {error.msg}.") from error
    # Brackets in brackets without end, numbers of thousands of digits.
    except (RecursionError, ValueError) as error:
        raise TextFileError(f"{path}: not valid JSON: {error}.") from error


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; refuses a key that stands twice."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key!r} stands twice in an object")
        found[key] = value
    return found


def read_yaml(path: str | Path) -> Any:
    """Return a YAML file's content.

    Raises:
        TextFileError: for what is not YAML or has a key twice, with its line; else as `read_text`.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses a key that stands twice, of which YAML's own would keep the last without a word."""

        # Of what is written: later << brings in the keys of other mappings.
        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            lines: dict[tuple[str, str], int] = {}
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                    continue
                name = key.tag, key.value
                if name in lines:
                    problem = f"{key.value!r} stands here and in line {lines[name]}"
                    raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
                lines[name] = key.start_mark.line + 1
            return node

    text = read_text(path)
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise TextFileError(f"{place}: not valid YAML: {problem}.") from error
    # Brackets in brackets without end, dates such as 2024-13-01.
    except (RecursionError, ValueError) as error:
        raise TextFileError(f"{path}: not valid YAML: {error}.") from error


def read_pairs(path: str | Path, fallback: str | None = None) -> Iterator[tuple[int, str, str]]:
    """Yield ``(line number, key, rest of the line)`` of a table such as Kaldi's ``text``.

    Key and rest are separated by white space; the rest may be empty. Empty lines are passed over.

    Raises:
        TextFileError: for a key that stands twice; else as `read_text`.
    """
    seen: dict[str, int] = {}
    for number, line in enumerate(read_lines(path, fallback), 1):
        fields = line.split(maxsplit=1)
        if not fields:
            continue
        key = fields[0]
        if key in seen:
            raise TextFileError(
                f"{path}:{number}: {key!r} stands here and in line {seen[key]}; a key may stand once. "
                "Remove one of the two lines."
            )
        seen[key] = number
        yield number, key, fields[1].strip() if len(fields) == 2 else ""


def read_table(path: str | Path) -> dict[str, str]:
    """Read a table of a data folder: a key and a value a line.

    Environment variables in the values are replaced; keys without a value are left out.

    Raises:
        TextFileError: as `read_pairs`.
    """
    return {key: os.path.expandvars(value) for _, key, value in read_pairs(path) if value}


def read_symbols(path: str | Path) -> dict[str, int]:
    """Read a symbol table: symbol and number a line.

    Raises:
        TextFileError: for another line; else as `read_text`.
    """
    symbols: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), 1):
        fields = line.split()
        if len(fields) != 2 or not fields[1].isdecimal():
            raise TextFileError(
                f"{path}:{number}: {line!r}; valid is a symbol and its number, such as: a 1"
            )
        symbols[fields[0]] = int(fields[1])
    return symbols


def write_text(path: Path, text: str) -> None:
    """Write a text; an interrupted run leaves no half file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines; an interrupted run leaves no half file."""
    write_text(path, "".join(f"{line}\n" for line in lines))


def write_symbols(path: Path, symbols: dict[str, int]) -> None:
    """Write a symbol table."""
    write_lines(path, [f"{symbol} {number}" for symbol, number in symbols.items()])
