"""Backoff language models in ARPA form: writing, probabilities of sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from espnet_quant4.text_files import write_lines

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
        # Of the longest n-grams there is no backoff, and kaldilm allows none.
        backoffs = model.log10_backoffs if order < max(by_order) else {}
        lines += [_line(model.log10_probs, backoffs, ngram) for ngram in ngrams]
    write_lines(Path(path), [*lines, "", "\\end\\"])


def _line(probs: Mapping[NGram, float], backoffs: Mapping[NGram, float], ngram: NGram) -> str:
    line = f"{probs[ngram]:.7f}\t{' '.join(ngram)}"
    return f"{line}\t{backoffs[ngram]:.7f}" if ngram in backoffs else line
