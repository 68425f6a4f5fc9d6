"""Whether two systems that recognized the same utterances differ by more than chance.

Two ways, both on aligned utterances as `espnet_quant4.report.scoring` gives them:

- `matched_pairs`, the matched-pairs sentence-segment word error test of NIST's ``sc_stats``: Gillick
  and Cox, "Some statistical issues in the comparison of speech recognition algorithms" (1989);
- `bootstrap`, over utterances: Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR
  performance evaluation" (2004).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from espnet_quant4.report.scoring import Pair, ScoringError

#: Words that both systems have right, which end a segment.
CORRECT_BETWEEN_SEGMENTS = 2
Alignments = Mapping[str, Sequence[Pair]]


@dataclass(frozen=True)
class MatchedPairs:
    """Outcome of `matched_pairs`.

    Attributes:
        segments: stretches of speech in which at least one system has an error.
        mean: errors a segment that the second system has more than the first.
        p: two-sided probability of a difference as large, if there were none; 1 without segments.
    """

    segments: int
    mean: float
    p: float


@dataclass(frozen=True)
class Difference:
    """Outcome of `bootstrap`: the second error rate minus the first, in percent of the words.

    Attributes:
        estimate: of all utterances.
        low: lower end of the interval.
        high: upper end.
        p: two-sided: twice the share of samples on the other side of 0, or 1.
    """

    estimate: float
    low: float
    high: float
    p: float


def matched_pairs(pairs: Sequence[tuple[Alignments, Alignments]]) -> MatchedPairs:
    """Test by segments, pooled over pairs of systems, such as one for each seed.

    Args:
        pairs: alignments of the first and of the second system.

    Raises:
        ScoringError: where the two of a pair have other utterances or references.
    """
    differences: list[int] = []
    for first, second in pairs:
        _check(first, second)
        for utterance, aligned in first.items():
            differences += _segments(_errors(aligned), _errors(second[utterance]))
    count = len(differences)
    if count == 0:
        return MatchedPairs(0, 0.0, 1.0)
    values = np.array(differences, dtype=np.float64)
    mean = float(values.mean())
    spread = float(values.std(ddof=1)) if count > 1 else 0.0
    if spread == 0:
        return MatchedPairs(count, mean, 1.0 if mean == 0 else 0.0)
    z = mean / (spread / math.sqrt(count))
    return MatchedPairs(count, mean, math.erfc(abs(z) / math.sqrt(2)))


def bootstrap(
    pairs: Sequence[tuple[Alignments, Alignments]],
    samples: int = 10000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Draw utterances, each with all its pairs of systems, and compare the error rates.

    Args:
        pairs: alignments of the first and of the second system, for each seed; all of the same
            utterances.
        samples: number of draws.
        level: share of the draws that the interval holds.
        seed: of the draws.

    Raises:
        ScoringError: where systems have other utterances or references, and without any word.
    """
    for first, second in pairs:
        _check(pairs[0][0], first)
        _check(first, second)
    utterances = list(pairs[0][0]) if pairs else []
    words = np.array(
        [sum(r is not None for r, _ in pairs[0][0][u]) for u in utterances], dtype=np.float64
    )
    if words.sum() == 0:
        raise ScoringError("nothing to compare: the reference has no word")
    more = np.zeros(len(utterances))
    for first, second in pairs:
        more += [sum(_errors(second[u])) - sum(_errors(first[u])) for u in utterances]
    more /= len(pairs)
    estimate = 100 * more.sum() / words.sum()
    random = np.random.default_rng(seed)
    drawn = np.empty(samples)
    for number in range(samples):
        chosen = random.integers(len(utterances), size=len(utterances))
        # A draw without a word says nothing.
        drawn[number] = 100 * more[chosen].sum() / max(words[chosen].sum(), 1)
    outside = (1 - level) / 2
    low, high = np.quantile(drawn, [outside, 1 - outside])
    p = min(1.0, 2 * min(float((drawn <= 0).mean()), float((drawn >= 0).mean())))
    return Difference(float(estimate), float(low), float(high), p)


def _check(first: Alignments, second: Alignments) -> None:
    odd = sorted(first.keys() ^ second.keys())
    if odd:
        raise ScoringError(
            f"{odd[0]} ({len(odd)} in all) was not recognized by both systems; decode the same part"
        )
    for utterance, aligned in first.items():
        if _reference(aligned) != _reference(second[utterance]):
            raise ScoringError(f"{utterance}: the two systems were scored with other references")


def _reference(aligned: Sequence[Pair]) -> list[str]:
    return [reference for reference, _ in aligned if reference is not None]


def _errors(aligned: Sequence[Pair]) -> list[int]:
    """Return the errors at each word of the reference; an insertion counts at the word behind it.

    One more stands at the end, for insertions behind the last word.
    """
    errors = [0]
    for reference, hypothesis in aligned:
        if reference is None:
            errors[-1] += 1
        else:
            errors[-1] += reference != hypothesis
            errors.append(0)
    return errors


def _segments(first: Sequence[int], second: Sequence[int]) -> list[int]:
    """Return the difference of the errors in each segment of an utterance."""
    found, open_, right = [], False, 0
    total = 0
    for one, other in zip(first, second, strict=True):
        if one == other == 0:
            right += 1
            if open_ and right >= CORRECT_BETWEEN_SEGMENTS:
                found.append(total)
                open_, total = False, 0
        else:
            open_, right = True, 0
            total += other - one
    if open_:
        found.append(total)
    return found
