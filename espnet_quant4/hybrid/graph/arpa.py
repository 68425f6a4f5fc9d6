"""Backoff language models in ARPA form: reading, writing, probabilities of sentences."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

BEGIN, END = "<s>", "</s>"
UNKNOWN_WORDS = ("<unk>", "<UNK>")
NGram = tuple[str, ...]


class LanguageModelError(ValueError):
    """A language model or its text cannot be used; names the place and the next step."""


@dataclass
class ArpaModel:
    """A backoff n-gram model.

    P(w | h) is that of the n-gram (h, w) where the model has it, else the backoff weight of h times
    P(w | h without its first word).

    Attributes:
        log10_probs: of each n-gram, by its words.
        log10_backoffs: of each n-gram that longer ones extend; 0 where one is missing.
    """

    log10_probs: dict[NGram, float] = field(default_factory=dict)
    log10_backoffs: dict[NGram, float] = field(default_factory=dict)

    @cached_property
    def order(self) -> int:
        """Words of the longest n-grams."""
        return max(map(len, self.log10_probs), default=0)

    @property
    def words(self) -> list[str]:
        """All words, without ``<s>`` and ``</s>``."""
        return [n[0] for n in self.log10_probs if len(n) == 1 and n[0] not in (BEGIN, END)]

    def log10_prob(self, history: NGram, word: str) -> float:
        """Return log10 P(word | history); minus infinity for a word that the model lacks."""
        history = history[max(0, len(history) - self.order + 1) :]
        backoff = 0.0
        while (found := self.log10_probs.get((*history, word))) is None:
            if not history:
                return -math.inf
            backoff += self.log10_backoffs.get(history, 0.0)
            history = history[1:]
        return backoff + found

    def log_prob(self, sentence: Sequence[str]) -> float:
        """Return the natural logarithm of a sentence's probability, its end included.

        A word that the model lacks counts as ``<unk>`` or ``<UNK>``.

        Raises:
            LanguageModelError: where the model has neither.
        """
        unknown = next((word for word in UNKNOWN_WORDS if (word,) in self.log10_probs), None)
        history: NGram = (BEGIN,)
        total = 0.0
        for word in (*sentence, END):
            if (word,) not in self.log10_probs:
                if unknown is None:
                    raise LanguageModelError(
                        f"the language model has neither {word!r} nor {' nor '.join(UNKNOWN_WORDS)}; "
                        "estimate one with a word for unknown words"
                    )
                word = unknown
            total += self.log10_prob(history, word)
            history = (*history, word)[-self.order :]
        return total * math.log(10)

    def perplexity(self, sentences: Iterable[Sequence[str]]) -> float:
        """Return the perplexity over all words and sentence ends; NaN without sentences."""
        log_prob, count = 0.0, 0
        for sentence in sentences:
            log_prob += self.log_prob(sentence)
            count += len(sentence) + 1
        return math.exp(-log_prob / count) if count else math.nan


def read_arpa(path: str | Path) -> ArpaModel:
    """Read an ARPA file, compressed where its name ends in ``.gz``.

    Raises:
        LanguageModelError: for a line that belongs nowhere, or counts that do not agree.
    """
    model, counts = ArpaModel(), dict[int, int]()
    order = 0
    opener: Any = gzip.open if str(path).endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            fields = line.split()
            if not fields or fields == ["\\data\\"]:
                continue
            if fields[0] == "\\end\\":
                break
            try:
                if fields[0] == "ngram":
                    length, count = " ".join(fields[1:]).replace("=", " ").split()
                    counts[int(length)] = int(count)
                elif fields[0].endswith("-grams:"):
                    order = int(fields[0][1 : -len("-grams:")])
                elif counts:
                    _read_line(model, order, fields)
            except ValueError as error:
                raise LanguageModelError(
                    f"{path}:{number}: {line.rstrip()!r} is no line of an ARPA file ({error})"
                ) from error
        else:
            raise LanguageModelError(f"{path}: no \\end\\; the file is cut off or no ARPA file")
    for order, wanted in counts.items():
        found = sum(len(ngram) == order for ngram in model.log10_probs)
        if found != wanted:
            raise LanguageModelError(
                f"{path}: {found} {order}-grams where its head says {wanted}; it is damaged"
            )
    return model


def _read_line(model: ArpaModel, order: int, fields: list[str]) -> None:
    if order < 1 or not order + 1 <= len(fields) <= order + 2:
        raise ValueError(f"{len(fields)} fields in a section of {order}-grams")
    ngram = tuple(fields[1 : order + 1])
    model.log10_probs[ngram] = float(fields[0])
    if len(fields) == order + 2:
        model.log10_backoffs[ngram] = float(fields[-1])


def write_arpa(model: ArpaModel, path: str | Path) -> None:
    """Write an ARPA file; an interrupted run leaves no half file."""
    by_order: dict[int, list[NGram]] = {}
    for ngram in sorted(model.log10_probs):
        by_order.setdefault(len(ngram), []).append(ngram)
    lines = ["\\data\\"]
    lines += [f"ngram {order}={len(ngrams)}" for order, ngrams in sorted(by_order.items())]
    for order in sorted(by_order):
        ngrams = by_order[order]
        lines += ["", f"\\{order}-grams:"]
        lines += [_line(model.log10_probs, model.log10_backoffs, ngram) for ngram in ngrams]
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.part")
    partial.write_text("\n".join([*lines, "", "\\end\\", ""]), encoding="utf-8")
    partial.replace(target)


def _line(probs: Mapping[NGram, float], backoffs: Mapping[NGram, float], ngram: NGram) -> str:
    line = f"{probs[ngram]:.7f}\t{' '.join(ngram)}"
    return f"{line}\t{backoffs[ngram]:.7f}" if ngram in backoffs else line
