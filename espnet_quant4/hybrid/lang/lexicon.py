"""Pronunciations: reading a lexicon, words that it lacks, disambiguation symbols."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_quant4.text_files import read_lines

# CMU's way to number further pronunciations of a word: A(2).
_VARIANT = re.compile(r"(.+)\((\d+)\)$")
# As Kaldi marks where in a word a phone stands.
_POSITION = re.compile(r"_[BESI]$")
_LIKE_PROBABILITY = re.compile(r"[01]?\.\d+(e-?\d+)?|1e-\d+")
_OTHER_SPACE = re.compile(r"[^\S \t]")
# What graphs use for themselves.
RESERVED = ("<eps>", "#0", "<s>", "</s>")


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


def read_lexicon(path: Path, variants: bool = True) -> list[Pronunciation]:
    """Read a lexicon: ``WORD PHONE...``, or ``WORD PROBABILITY PHONE...`` in a ``lexiconp*.txt``.

    What Kaldi's ``validate_dict_dir.pl`` refuses is refused. Lines that begin with ``;;;`` are
    comments, and so is what follows a field ``#``, as in CMU's dictionary.

    Args:
        path: the file, in UTF-8. Its name says whether it holds probabilities, as in Kaldi.
        variants: whether ``WORD(2)`` is a further pronunciation of ``WORD``.

    Raises:
        LexiconError: naming the line, for one without phones, with a word or phone that Kaldi reserves
            or a probability out of range, or that stands twice; for a file without any.
        TextFileError: for a file that is no text in UTF-8.
    """
    with_probabilities = path.name.startswith("lexiconp")
    if path.name.startswith("lexiconp_silprob"):
        raise LexiconError(
            f"{path}: probabilities of silence are not read; give lexiconp.txt or lexicon.txt instead."
        )
    found: dict[tuple[str, tuple[str, ...]], Pronunciation] = {}
    lines: dict[tuple[str, ...], int] = {}
    for number, line in enumerate(read_lines(path), 1):
        where = f"{path}:{number}"
        fields = split_fields(line, where)
        if not fields or fields[0].startswith(";;;"):
            continue
        if "#" in fields[1:]:
            fields = fields[: fields.index("#", 1)]
        if (before := lines.setdefault(tuple(fields), number)) != number:
            raise LexiconError(
                f"{where}: {line!r} stands in line {before} too; remove one of them."
            )
        entry = _entry(fields, where, with_probabilities, variants)
        known = found.setdefault((entry.word, entry.phones), entry)
        if known.probability != entry.probability:
            raise LexiconError(
                f"{where}: {entry.word} {' '.join(entry.phones)} has probability {entry.probability:g} "
                f"here and {known.probability:g} before; keep one of the two."
            )
    if not found:
        raise LexiconError(f"{path}: no pronunciation in it; valid lines: WORD PHONE...")
    return list(found.values())


def split_fields(line: str, where: str) -> list[str]:
    """Return what blanks and tabs separate.

    Raises:
        LexiconError: for other white space, by which Python would separate and Kaldi would not.
    """
    if match := _OTHER_SPACE.search(line):
        raise LexiconError(
            f"{where}: white space U+{ord(match.group()):04X} in {line!r}; valid are blanks and tabs."
        )
    return line.split()


def _entry(
    fields: Sequence[str], where: str, with_probabilities: bool, variants: bool
) -> Pronunciation:
    word, *phones = fields
    if variants and (match := _VARIANT.match(word)):
        word = match.group(1)
    check_word(word, where)
    probability = _take_probability(phones, where) if with_probabilities else 1.0
    if not phones:
        raise LexiconError(f"{where}: {' '.join(fields)!r} has no phones; valid: WORD PHONE...")
    if not with_probabilities and _LIKE_PROBABILITY.fullmatch(phones[0]):
        raise LexiconError(
            f"{where}: {phones[0]!r} looks like a probability, and these are read from a lexiconp.txt "
            "only. Rename the file to that, or remove the column."
        )
    for phone in phones:
        _check_phone(phone, where)
    return Pronunciation(word, probability, tuple(phones))


def check_word(word: str, where: str) -> None:
    """Check that a word is none that graphs use for themselves.

    Raises:
        LexiconError: if it is.
    """
    if word in RESERVED:
        raise LexiconError(
            f"{where}: the word {word!r} is reserved; none may be any of {' '.join(RESERVED)}. "
            "Remove it."
        )
    if not word.strip("#"):
        raise LexiconError(
            f"{where}: the word {word!r}; if the line is a comment, begin it with ;;; instead."
        )


def _take_probability(phones: list[str], where: str) -> float:
    text = phones.pop(0) if phones else ""
    try:
        probability = float(text)
    except ValueError:
        raise LexiconError(
            f"{where}: {text!r} where a lexiconp.txt has a probability; valid: WORD PROBABILITY "
            "PHONE..."
        ) from None
    if not 0 < probability <= 1:
        raise LexiconError(f"{where}: probability {text}; valid are numbers above 0, to 1.")
    return probability


def _check_phone(phone: str, where: str) -> None:
    if phone == "<eps>" or phone.startswith("#"):
        raise LexiconError(
            f"{where}: the phone {phone!r} is reserved, as <eps> and all that begin with # are. "
            "Begin a "
            "comment with ' # '."
        )
    if _POSITION.search(phone):
        raise LexiconError(
            f"{where}: the phone {phone!r} ends as Kaldi marks positions in a word: _B, _E, _S "
            "or _I. Give "
            "a lexicon without such marks, or rename the phone."
        )


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


def describe_unknown(
    unknown: Counter[str], transcripts: Mapping[str, Sequence[str]], known: Iterable[str]
) -> str:
    """Return how many words a lexicon lacks and, where that is due to upper and lower case, that."""
    total = sum(map(len, transcripts.values()))
    most = ", ".join(f"{word} ({count})" for word, count in unknown.most_common(10))
    text = (
        f"{len(unknown)} words of the transcripts, {sum(unknown.values())} times in all, "
        f"{100 * unknown_share(unknown, transcripts):.1f}% of {total}, have no pronunciation: {most}"
    )
    folded = {word.casefold(): word for word in known}
    by_case = {word: folded[word.casefold()] for word in unknown if word.casefold() in folded}
    if sum(unknown[word] for word in by_case) > sum(unknown.values()) / 2:
        word, other = next(iter(by_case.items()))
        text += (
            f". Most of them have one in another case, as {other} for {word}: write lexicon and "
            "transcripts in the same case"
        )
    return text


def unknown_share(unknown: Counter[str], transcripts: Mapping[str, Sequence[str]]) -> float:
    """Return the share of unknown words in all words of the transcripts; 0 where these hold none."""
    total = sum(map(len, transcripts.values()))
    return sum(unknown.values()) / total if total else 0.0


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
