"""Commands as documents, docstrings and scripts show them, to be held against what there is."""

import ast
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from interpreter import REPOSITORY
from tracked import tracked_files

# ESPnet's own asr.sh, which has no folder before it, is none of ours.
# What makes a code span or an indented line of a docstring a command.
PROGRAM = (
    r"(?:espnet-quant4|python -m|python \S+\.py|make [a-z]|pip install|\S*/\S*\.sh --|\.ci/run)"
)


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        words: of it.
        where: the document.
        folder: where it is run.
        part: whether what is left out may be wanted: a code span, or one with ``...``.
    """

    words: tuple[str, ...]
    where: Path
    folder: Path
    part: bool = field(default=False, compare=False)

    def __str__(self):
        return f"{self.where}: {' '.join(self.words)[:70]}"


def split(text, where, folder, part=False):
    """Yield the commands of a shell text."""
    for line in text.replace("\\\n", " ").splitlines():
        shown, left_out = leave_out(line)
        lexer = shlex.shlex(shown, posix=True, punctuation_chars="&;|")
        lexer.whitespace_split = True
        words = []
        for word in [*lexer, "&&"]:
            if set(word) <= set("&;|"):
                if words:
                    yield Command(tuple(words), where, folder, part or left_out)
                if words[:1] == ["cd"]:
                    folder = folder / words[1]
                words = []
            # Not the environment variables before a program.
            elif words or not re.match("[A-Z_0-9]+=", word):
                words.append(word)


def leave_out(line):
    """Take out what stands for words of the reader's; return the rest, and whether there was any.

    ``[--option value]`` may be given, so it is kept.
    """
    line = re.sub(r"(?<!\S)\[(--[^]]*)\]", r"\1", line)
    shown = re.sub(r"(?<!\S)(\[[^]]*\]|\.\.\.)", "", line)
    return shown, shown != line


def of_document(path):
    """Yield the commands of a Markdown file: its shell blocks, added lines of diffs, code spans."""
    text = (REPOSITORY / path).read_text(encoding="utf-8")
    folder = path.parent if path.parts[0] == "egs" else Path()
    for kind, block in re.findall(r"^```(sh|diff)\n(.*?)^```", text, re.S | re.M):
        if kind == "diff":
            added = re.findall(r"^\+(.*)$", block, re.M)
            block = "\n".join(added).replace("\\\n", " ")
            block = "\n".join(line for line in block.splitlines() if re.match(PROGRAM, line))
        yield from split(block, path, folder)
    plain = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    for span in re.findall(r"`([^`]+)`", plain):
        span = " ".join(span.split())
        if re.match(PROGRAM, span):
            yield from split(span, path, folder, part=True)


def of_docstring(path):
    """Yield the commands of a module's docstring: its indented lines."""
    text = ast.get_docstring(ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))) or ""
    text = text.replace("\\\n", " ")
    for line in re.findall(rf"^ +({PROGRAM}.*)$", text, re.M):
        yield from split(line, path, Path())


def all_commands():
    """Return every command that is shown anywhere, once for each document."""
    found = []
    for folder in (
        "README.md",
        "CONTRIBUTING.md",
        "docs",
        "egs",
        "espnet_quant4/bin",
        "benchmarks",
    ):
        for path in tracked_files(folder):
            if path.suffix == ".md":
                found += of_document(path)
            elif path.suffix == ".py" and path.parts[0] != "egs":
                found += of_docstring(path)
    return list(dict.fromkeys(found))
