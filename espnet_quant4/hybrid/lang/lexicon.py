"""Pronunciations: reading a lexicon, words that it lacks, disambiguation symbols."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# CMU's way to number further pronunciations of a word: A(2).
_VARIANT = re.compile(r"(.+)\((\d+)\)$")


class LexiconError(ValueError):
    """A lexicon or transcript that cannot be used; names the place and what is valid."""


@dataclass(frozen=True)
class Pronunciation:
    """One pronunciation of a word.

    Attributes:
        word: as in transcripts.
        probability: relative to the word's most likely pronunciation, above 0, to 1.
        phones: at least one.
    """

    word: str
    probability: float
    phones: tuple[str, ...]


def read_lexicon(path: Path) -> list[Pronunciation]:
    """Read a lexicon: ``WORD PHONE...``, or ``WORD PROBABILITY PHONE...`` as in ``lexiconp.txt``.

    ``WORD(2)`` is a further pronunciation of ``WORD``.

    Raises:
        LexiconError: for a line without phones, a probability out of range, or no line at all.
    """
    found: dict[tuple[str, tuple[str, ...]], Pronunciation] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split()
        if not fields or line.startswith(";;;"):
            continue
        word, *phones = fields
        match = _VARIANT.match(word)
        word = match.group(1) if match else word
        probability = 1.0
        if phones and re.fullmatch(r"\d*\.?\d+(e-?\d+)?", phones[0]):
            probability = float(phones.pop(0))
        if not phones:
            raise LexiconError(f"{path}:{number}: {line!r} has no phones; valid: WORD PHONE...")
        if not 0 < probability <= 1:
            raise LexiconError(
                f"{path}:{number}: probability {probability}; valid are numbers above 0, to 1."
            )
        found.setdefault((word, tuple(phones)), Pronunciation(word, probability, tuple(phones)))
    if not found:
        raise LexiconError(f"{path}: no pronunciation in it; valid lines: WORD PHONE...")
    return list(found.values())


def check_phones(
    pronunciations: Iterable[Pronunciation], known: Iterable[str], topology: str
) -> None:
    """Check that a topology has all phones.

    Raises:
        LexiconError: naming the phones that it lacks and words that use them.
    """
    known = set(known)
    lacking: dict[str, str] = {}
    for entry in pronunciations:
        for phone in entry.phones:
            if phone not in known:
                lacking.setdefault(phone, entry.word)
    if lacking:
        named = ", ".join(f"{phone} (in {word})" for phone, word in sorted(lacking.items()))
        raise LexiconError(
            f"phones that {topology} lacks: {named}; it has: {' '.join(sorted(known))}. Correct the "
            "lexicon, or make the topology anew from it."
        )


def count_unknown(transcripts: Mapping[str, Sequence[str]], known: Iterable[str]) -> Counter[str]:
    """Count the words of transcripts that a lexicon lacks."""
    known = set(known)
    return Counter(word for words in transcripts.values() for word in words if word not in known)


def with_disambiguation(
    pronunciations: Sequence[Pronunciation],
) -> tuple[list[tuple[Pronunciation, int]], int]:
    """Give each pronunciation the number of its disambiguation symbol.

    Two words of one pronunciation, and a pronunciation that another one starts with, would make the
    lexicon impossible to determinize (Mohri et al., "Weighted finite-state transducers in speech
    recognition", 2002, section 3).

    Returns:
        Pairs of pronunciation and number, 0 for none, and the largest number.
    """
    sequences = Counter(entry.phones for entry in pronunciations)
    prefixes = {
        entry.phones[:length] for entry in pronunciations for length in range(1, len(entry.phones))
    }
    used: Counter[tuple[str, ...]] = Counter()
    result = []
    for entry in pronunciations:
        number = 0
        if sequences[entry.phones] > 1 or entry.phones in prefixes:
            used[entry.phones] += 1
            number = used[entry.phones]
        result.append((entry, number))
    return result, max(used.values(), default=0)
