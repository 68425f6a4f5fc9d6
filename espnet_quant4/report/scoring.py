"""Word and character error rates, counted as NIST's ``sclite`` counts them.

``sclite`` aligns by dynamic programming with costs 4 for a substitution and 3 for an insertion or
a deletion (``sclite(1)``, "Alignment"), so its counts are not always those of the smallest edit
distance. Among alignments of equal cost it prefers, from the end backwards, a match or
substitution, then an insertion, then a deletion; the tests hold both against the real program.

A transcript file is in its ``trn`` format: one utterance a line, tokens, then ``(speaker-utt)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import numpy as np

from espnet_quant4.text_files import read_lines

SUBSTITUTION_COST = 4
GAP_COST = 3

Pair = tuple[str | None, str | None]
_Key = TypeVar("_Key")


class ScoringError(ValueError):
    """Reference and hypothesis do not belong together, or a line is malformed."""


@dataclass(frozen=True)
class Counts:
    """Error counts of one or more utterances; the names are those of ``sclite``'s columns.

    Attributes:
        sentences: number of utterances (``# Snt``).
        words: tokens in the reference (``# Wrd``).
        correct: ``Corr``.
        substitutions: ``Sub``.
        deletions: ``Del``.
        insertions: ``Ins``.
        wrong_sentences: utterances with at least one error (``S.Err``).
    """

    sentences: int = 0
    words: int = 0
    correct: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    wrong_sentences: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def error_rate(self) -> float:
        """Errors per reference token in percent; NaN where the reference is empty."""
        return 100.0 * self.errors / self.words if self.words else float("nan")

    @property
    def sentence_error_rate(self) -> float:
        """Wrong utterances in percent; NaN where there are none."""
        return 100.0 * self.wrong_sentences / self.sentences if self.sentences else float("nan")


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Pair]:
    """Align two token sequences.

    Returns:
        ``(reference token, hypothesis token)`` in order; None on the left is an insertion, None on
        the right a deletion.
    """
    rows, columns = len(reference), len(hypothesis)
    # int16 would overflow from 10,000 tokens on; memory is 4 bytes a cell.
    costs = np.empty((rows + 1, columns + 1), dtype=np.int32)
    gaps = GAP_COST * np.arange(columns + 1, dtype=np.int32)
    costs[0] = gaps
    tokens = np.asarray(hypothesis, dtype=object)
    for i, token in enumerate(reference, start=1):
        row = costs[i - 1] + GAP_COST
        mismatch = np.where(tokens == token, 0, SUBSTITUTION_COST).astype(np.int32)
        row[1:] = np.minimum(row[1:], costs[i - 1, :-1] + mismatch)
        # Insertions run along the row: the best start for each end, all at once.
        costs[i] = np.minimum.accumulate(row - gaps) + gaps

    pairs: list[Pair] = []
    i, j = rows, columns
    while i or j:
        here = costs[i, j]
        if i and j:
            cost = 0 if reference[i - 1] == hypothesis[j - 1] else SUBSTITUTION_COST
            if here == costs[i - 1, j - 1] + cost:
                i, j = i - 1, j - 1
                pairs.append((reference[i], hypothesis[j]))
                continue
        if j and here == costs[i, j - 1] + GAP_COST:
            j -= 1
            pairs.append((None, hypothesis[j]))
        else:
            i -= 1
            pairs.append((reference[i], None))
    return pairs[::-1]


def count(pairs: Iterable[Pair]) -> Counts:
    """Count the errors of one aligned utterance."""
    correct = substitutions = deletions = insertions = 0
    for reference, hypothesis in pairs:
        if reference is None:
            insertions += 1
        elif hypothesis is None:
            deletions += 1
        elif reference == hypothesis:
            correct += 1
        else:
            substitutions += 1
    return counts_of_utterance(correct, substitutions, deletions, insertions)


def counts_of_utterance(
    correct: int, substitutions: int, deletions: int, insertions: int
) -> Counts:
    """Return the counts of one utterance by its words."""
    return Counts(
        sentences=1,
        words=correct + substitutions + deletions,
        correct=correct,
        substitutions=substitutions,
        deletions=deletions,
        insertions=insertions,
        wrong_sentences=int(substitutions + deletions + insertions > 0),
    )


def read_trn(path: str | Path) -> dict[str, list[str]]:
    """Read a ``trn`` file.

    Returns:
        ``{utterance: tokens}`` in the order of the file.

    Raises:
        ScoringError: for a line without ``(utterance)`` at its end, or an utterance that is there
            twice; the message names file and lines.
        TextFileError, OSError: for what is no text file; see `read_lines`.
    """
    utterances: dict[str, list[str]] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), start=1):
        text, opening, rest = line.rstrip().rpartition("(")
        if not opening or not rest.endswith(")"):
            raise ScoringError(f"{path}:{number}: {line.rstrip()!r} does not end in (utterance)")
        name = rest[:-1]
        refuse_second(lines, name, f"utterance {name}", path, number)
        utterances[name] = text.split()
    return utterances


def refuse_second(
    lines: dict[_Key, int], key: _Key, what: str, path: str | Path, number: int
) -> None:
    """Note the line of a key that may stand once in a file.

    Args:
        lines: of the keys before; the key is added.
        key: of this line.
        what: names it in the message.
        path: the file.
        number: of this line.

    Raises:
        ScoringError: where the key has a line already.
    """
    first = lines.setdefault(key, number)
    if first != number:
        raise ScoringError(
            f"{path}:{number}: {what} stands here and in line {first}; it may stand once. Remove one "
            "of the two lines."
        )


@dataclass(frozen=True)
class Score:
    """The alignment of every utterance of a set."""

    alignments: dict[str, list[Pair]]

    @property
    def counts(self) -> dict[str, Counts]:
        """Counts of every utterance."""
        return {name: count(pairs) for name, pairs in self.alignments.items()}

    @property
    def total(self) -> Counts:
        """Counts over all utterances."""
        return sum(self.counts.values(), Counts())

    @property
    def speakers(self) -> dict[str, Counts]:
        """Counts by speaker, what stands before the first hyphen of the utterance's name."""
        return by_speaker(self.counts)


def by_speaker(counts: Mapping[str, Counts]) -> dict[str, Counts]:
    """Add up utterances by speaker, what stands before the first hyphen of their names."""
    speakers: dict[str, Counts] = {}
    for name, of_utterance in counts.items():
        speaker = name.partition("-")[0]
        speakers[speaker] = speakers.get(speaker, Counts()) + of_utterance
    return dict(sorted(speakers.items()))


def score(
    references: dict[str, list[str]], hypotheses: dict[str, list[str]], where: str = "hypotheses"
) -> Score:
    """Align hypotheses with references of the same names.

    Raises:
        ScoringError: if an utterance is missing on either side, since leaving it out would change
            the error rate without a word; ``where`` names the hypotheses in the message.
    """
    for kind, names in (
        ("no hypothesis for", references.keys() - hypotheses.keys()),
        ("no reference for", hypotheses.keys() - references.keys()),
    ):
        if names:
            few = ", ".join(sorted(names)[:3])
            raise ScoringError(
                f"{where}: {kind} {len(names)} utterance(s), such as {few}. Decode and score the "
                "same set; delete the decoding folder if it is left from other data."
            )
    return Score({name: align(tokens, hypotheses[name]) for name, tokens in references.items()})


def format_counts(counts: Mapping[str, Counts]) -> str:
    """Return the table of rates by speaker of the counts of utterances, as in ``sclite``'s reports."""
    rows = [*by_speaker(counts).items(), ("Sum/Avg", sum(counts.values(), Counts()))]
    width = max(len(name) for name, _ in rows)
    lines = [
        f"| {'SPKR':<{width}} | # Snt # Wrd | Corr    Sub    Del    Ins    Err  S.Err |",
    ]
    for name, c in rows:
        percents = " ".join(
            f"{100.0 * n / c.words if c.words else float('nan'):6.1f}"
            for n in (c.correct, c.substitutions, c.deletions, c.insertions, c.errors)
        )
        lines.append(
            f"| {name:<{width}} | {c.sentences:5d} {c.words:5d} |{percents} "
            f"{c.sentence_error_rate:6.1f} |"
        )
    return "\n".join(lines)


def format_score(result: Score) -> str:
    """Return the table of rates by speaker and every alignment, as in ``sclite``'s reports."""
    lines = [format_counts(result.counts)]
    for name, pairs in result.alignments.items():
        c = count(pairs)
        shown = [_show(pair) for pair in pairs]
        lines += [
            "",
            f"id: ({name})",
            f"Scores: (#C #S #D #I) {c.correct} {c.substitutions} {c.deletions} {c.insertions}",
            "REF:  " + " ".join(reference for reference, _ in shown),
            "HYP:  " + " ".join(hypothesis for _, hypothesis in shown),
        ]
    return "\n".join(lines) + "\n"


def _show(pair: Pair) -> tuple[str, str]:
    """Right tokens in lower case, errors in upper case, stars where there is no token."""
    reference, hypothesis = pair
    if reference is not None and reference == hypothesis:
        return reference.lower(), reference.lower()
    width = max(len(token) for token in pair if token is not None)
    left = "*" * width if reference is None else reference.upper().ljust(width)
    right = "*" * width if hypothesis is None else hypothesis.upper().ljust(width)
    return left, right
