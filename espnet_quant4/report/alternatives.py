"""Alternatives in NIST's references, ``{ a / b }``, which may hold others: ``{ a { b / c } / d }``.

Read as ``sclite`` reads them: braces and slashes need no blanks around them, a slash outside of
braces is a word, an alternative without words is written ``{ a / @ }``, and one that is left empty is
none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from espnet_quant4.report.scoring import ScoringError

#: A word, or the alternatives in its place, each of which is a sequence of the same kind.
Part: TypeAlias = "str | list[list[Part]]"

_TOKEN = re.compile(r"[{}/]|[^{}/\s]+")
_ATTACHED = re.compile(r"\S*(?:[^\s{}/]\{|\}[^\s{}/])\S*")


def parse_alternatives(text: str) -> list[Part]:
    """Return the words and alternatives of a transcript.

    Raises:
        ScoringError: for a brace without its partner, and for what ``sclite`` crashes at: a pair of
            braces with nothing inside, or one within a word.
    """
    if attached := _ATTACHED.search(text):
        raise ScoringError(f"a brace within a word, {attached[0]!r}: {text!r}")
    outer: list[Part] = []
    # What is open: alternatives, the last of which grows.
    open_: list[list[list[Part]]] = []
    for token in _tokens(text):
        here = open_[-1][-1] if open_ else outer
        if token == "{":
            group: list[list[Part]] = [[]]
            here.append(group)
            open_.append(group)
        elif token == "}":
            if not open_:
                raise ScoringError(f"a closing brace without its opening one: {text!r}")
            group = open_.pop()
            group[:] = [choice for choice in group if choice]
            if not group:
                raise ScoringError(f"braces without an alternative between them: {text!r}")
        elif token == "/" and open_:
            open_[-1].append([])
        else:
            here.append(token)
    if open_:
        raise ScoringError(f"an opening brace without its closing one: {text!r}")
    return outer


def first_words(parts: Sequence[Part], said: Callable[[str], object]) -> list[str]:
    """Return the words of a transcript, of alternatives the first in which something is said.

    Args:
        parts: of `parse_alternatives`.
        said: whether a word counts as said.
    """
    words: list[str] = []
    for part in parts:
        if isinstance(part, str):
            words.append(part)
        else:
            choices = (first_words(choice, said) for choice in part)
            words += next((choice for choice in choices if any(map(said, choice))), [])
    return words


def _tokens(text: str) -> list[str]:
    """Return braces, slashes and words; outside of braces a slash may stand in a word."""
    tokens: list[str] = []
    depth = 0
    for word in text.split():
        parts = _TOKEN.findall(word)
        if depth == 0 and "{" not in parts and "}" not in parts:
            parts = [word]
        depth += parts.count("{") - parts.count("}")
        tokens += parts
    return tokens
