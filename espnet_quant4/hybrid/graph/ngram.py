"""N-gram models estimated from a training text, with interpolated Witten-Bell smoothing.

Bell, Cleary and Witten, "Text compression" (1990), method C, in the form of Chen and Goodman, "An
empirical study of smoothing techniques for language modeling" (1999), equation 16:

    P(w | h) = (c(h w) + T(h) P(w | h')) / (c(h) + T(h))

with c the count, T(h) the number of different words seen after h, and h' the history without its
first word; the shortest history is interpolated with the same probability for every word.  It takes
no counts of counts, so it also works on a few hundred sentences.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from espnet_quant4.hybrid.graph.arpa import BEGIN, END, ArpaModel, LanguageModelError, NGram

ORDERS = (1, 2, 3)
# What ARPA files give for <s>, which is never predicted.
_NEVER = -99.0


def estimate(
    sentences: Iterable[Sequence[str]], vocabulary: Iterable[str], order: int = 2
) -> ArpaModel:
    """Estimate a model.

    Args:
        sentences: words, all of the vocabulary; sentences without words are left out.
        vocabulary: what the model can say.  Words that no sentence holds get their share.
        order: 1 to 3.

    Returns:
        The model; for each history its probabilities sum to one.

    Raises:
        LanguageModelError: for another order, without sentences, or for a word that the vocabulary
            lacks.
    """
    if order not in ORDERS:
        raise LanguageModelError(f"order {order}; valid: {', '.join(map(str, ORDERS))}")
    words = sorted({*vocabulary, END} - {BEGIN})
    successors = _count(sentences, order)
    if not successors:
        raise LanguageModelError("no sentence with words in it to estimate a language model from")
    unknown = sorted(set(successors[()]) - set(words))
    if unknown:
        raise LanguageModelError(
            f"{len(unknown)} word(s) that the vocabulary lacks, such as {', '.join(unknown[:3])}; map "
            "them to its word for unknown words first"
        )
    model = ArpaModel()
    model.log10_probs[(BEGIN,)] = _NEVER
    probs: dict[NGram, float] = {}
    for history in sorted(successors, key=len):
        seen = successors[history]
        kinds, total = len(seen), sum(seen.values())
        rest = kinds / (total + kinds)
        for word in words if not history else sorted(seen):
            # A shorter history has seen whatever a longer one has.
            ngram = (*history, word)
            shorter = probs[ngram[1:]] if history else 1 / len(words)
            probs[ngram] = seen[word] / (total + kinds) + rest * shorter
        if history:
            model.log10_backoffs[history] = math.log10(rest)
    model.log10_probs.update({ngram: math.log10(prob) for ngram, prob in probs.items()})
    return model


def _count(sentences: Iterable[Sequence[str]], order: int) -> dict[NGram, Counter[str]]:
    """Return how often each word follows each history of up to ``order - 1`` words."""
    successors: defaultdict[NGram, Counter[str]] = defaultdict(Counter)
    for sentence in sentences:
        if not sentence:
            continue
        history: NGram = (BEGIN,)
        for word in (*sentence, END):
            for length in range(min(order - 1, len(history)) + 1):
                successors[history[len(history) - length :]][word] += 1
            history = (*history, word)
    return successors
