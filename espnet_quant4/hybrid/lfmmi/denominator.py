"""The denominator graph: which sequences of pdf ids there can be, and how likely each is.

In Povey et al., "Purely sequence-trained neural networks for ASR based on lattice-free MMI"
(Interspeech 2016), a phone 4-gram is composed with context dependency and topology, without
transition probabilities. Here the n-gram stands on the pdf ids themselves, with repetitions
removed, as in Xiong et al., "The Microsoft 2016 Conversational Speech Recognition System", section
on LFMMI. That needs only an alignment, takes any tree and topology as they are, and remembers the
phone's context as far as the tree asks for it. It differs in three points:

- *Smoothed*: interpolated absolute discounting (Ney, Essen and Kneser, "On structuring probabilistic
  dependences in stochastic language modelling", 1994) down to a uniform distribution. Every sequence
  then has a path, so that no alignment has to be left out, whatever was seen in training. Povey et
  al. never back off below a trigram, to keep the graph small; as an epsilon arc a state it costs
  little.
- *Interpolated as a sum*: an arc carries the discounted frequency alone, an epsilon arc the weight
  of the shorter history. The sum over paths is the interpolated probability, and each state's
  probabilities add up to one.
- *Durations are geometric*, with one self-loop probability a pdf, as in a hidden Markov model.

    d(h) --eps, 1 - loop--> c(h) --w, (count - D) / total--> d(hw)
     ^ |                      |
     --- last pdf of h, loop  --eps, D * distinct / total--> c(shorter h)

A history ``h`` has a state ``d`` that a run stays in, and a state ``c`` that the next run is chosen
in. With order 3 and above a path that takes the shorter history goes on from it, while the
interpolated model would remember the longer one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from espnet_quant4.hybrid.lfmmi.runs import Ints, collapse
from espnet_quant4.hybrid.openfst import FstArrays

ORDERS = (1, 2, 3, 4)
#: Where counts of counts, which the discount is estimated from, are missing.
FALLBACK_DISCOUNT = 0.5

History = tuple[int, ...]


def estimate_denominator(
    alignments: Iterable[tuple[str, Ints]], num_pdfs: int, order: int = 2
) -> FstArrays:
    """Estimate the denominator graph on alignments.

    Args:
        alignments: name and pdf ids (frames,) of each utterance, at the frame rate of the network's
            output.
        num_pdfs: number of pdf ids; also those that are in no alignment get a path.
        order: of the n-gram; 2 is a bigram of pdf ids.

    Returns:
        An acceptor with costs. Labels are pdf id + 1, since 0 is epsilon, as in Kaldi's ``den.fst``.

    Raises:
        ValueError: for an order that is not valid, an id that is out of range, and no alignment.
    """
    if order not in ORDERS:
        raise ValueError(f"order: {order}; valid are {', '.join(map(str, ORDERS))}.")
    frames, runs = np.zeros(num_pdfs), np.zeros(num_pdfs)
    begin, end = num_pdfs, num_pdfs + 1
    sequences = []
    for utterance, pdf_ids in alignments:
        if len(pdf_ids) == 0:
            raise ValueError(f"utterance {utterance}: no pdf ids. Leave it out of the alignment.")
        wrong = np.flatnonzero((pdf_ids < 0) | (pdf_ids >= num_pdfs))
        if len(wrong):
            raise ValueError(
                f"utterance {utterance}: pdf id {pdf_ids[wrong[0]]}, its number {wrong[0] + 1}; valid "
                f"are 0 to {num_pdfs - 1}. Take num_pdfs from the folder that the alignment is in."
            )
        collapsed = collapse(pdf_ids)[0]
        frames += np.bincount(pdf_ids, minlength=num_pdfs)
        runs += np.bincount(collapsed, minlength=num_pdfs)
        sequences.append(np.concatenate([[begin], collapsed, [end]]))
    if not sequences:
        raise ValueError("no utterance to estimate a denominator graph on.")
    # One more frame each way, or a pdf that was never repeated could never be.
    self_loops = (frames - runs + 1) / (frames + 2)
    tokens = np.concatenate(sequences)
    builder = _GraphBuilder(self_loops, order)
    for n in range(order, 0, -1):
        builder.add_histories(*count_ngrams(tokens, n, num_pdfs))
    return builder.build()


def count_ngrams(tokens: Ints, n: int, num_pdfs: int) -> tuple[Ints, Ints]:
    """Count n-grams of runs within utterances.

    Args:
        tokens: runs of all utterances, each between ``num_pdfs`` (begin) and ``num_pdfs + 1`` (end).
        n: their length.
        num_pdfs: number of pdf ids.

    Returns:
        The n-grams, ``(distinct, n)``, in ascending order, and the count of each. The begin is
        never predicted.
    """
    if len(tokens) < n:
        return np.empty((0, n), dtype=np.int64), np.empty(0, dtype=np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(tokens, n)
    inside = (windows[:, :-1] != num_pdfs + 1).all(1) & (windows[:, 1:] != num_pdfs).all(1)
    inside &= windows[:, -1] != num_pdfs
    base = num_pdfs + 2
    powers = base ** np.arange(n - 1, -1, -1, dtype=np.int64)
    keys, counts = np.unique(windows[inside] @ powers, return_counts=True)
    return keys[:, None] // powers % base, counts.astype(np.int64)


def discount_of(counts: Ints) -> float:
    """Return the absolute discount ``n1 / (n1 + 2 n2)`` of Ney, Essen and Kneser (1994)."""
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    return once / (once + 2 * twice) if once and twice else FALLBACK_DISCOUNT


class _GraphBuilder:
    """Collects the arcs, the longest histories first."""

    def __init__(self, self_loops: np.ndarray, order: int) -> None:
        self.self_loops, self.order = self_loops, order
        self.num_pdfs = len(self_loops)
        self.begin, self.end = self.num_pdfs, self.num_pdfs + 1
        self.choices: dict[History, int] = {}
        self.durations: dict[History, int] = {}
        self.ngrams: list[tuple[History, int, float]] = []
        self.shorter: list[tuple[History, float]] = []
        self.finals: dict[History, float] = {}
        self.num_states = 0

    def add_histories(self, ngrams: Ints, counts: Ints) -> None:
        """Add the n-grams of one length; those with no history, of length 1, come last."""
        discount = discount_of(counts)
        histories, owner = np.unique(ngrams[:, :-1], axis=0, return_inverse=True)
        owner = owner.reshape(-1)
        totals, distinct = np.bincount(owner, counts), np.bincount(owner)
        names: list[History] = [tuple(history) for history in histories.tolist()]
        for history in names:
            self._add_states(history)
        probabilities = (counts - discount) / totals[owner]
        words = ngrams[:, -1].tolist()
        interpolation = discount * distinct / totals
        if names == [()]:
            # The uniform distribution below the shortest history, over pdf ids and the end.
            smoothed = np.full(self.num_pdfs + 2, interpolation[0] / (self.num_pdfs + 1))
            smoothed[words] += probabilities
            words = [*range(self.num_pdfs), self.end]
            probabilities, owner = smoothed[words], np.zeros(len(words), dtype=np.int64)
        else:
            self.shorter += zip(names, interpolation.tolist(), strict=True)
        for index, word, probability in zip(
            owner.tolist(), words, probabilities.tolist(), strict=True
        ):
            if word == self.end:
                self.finals[names[index]] = probability
            else:
                self.ngrams.append((names[index], word, probability))

    def _add_states(self, history: History) -> None:
        self.choices[history] = self._new_state()
        if history and history[-1] != self.begin:
            self.durations[history] = self._new_state()

    def _new_state(self) -> int:
        self.num_states += 1
        return self.num_states - 1

    def build(self) -> FstArrays:
        """Return the graph."""
        for pdf in range(self.num_pdfs):
            if (pdf,) not in self.durations:  # in no alignment, or order 1
                self.durations[(pdf,)] = self._new_state()
        arcs: list[tuple[int, int, int, float]] = []
        for history, state in self.durations.items():
            loop = float(self.self_loops[history[-1]])
            choice = _longest(history, self.choices)
            arcs += [(state, state, history[-1] + 1, loop), (state, choice, 0, 1 - loop)]
        for history, probability in self.shorter:
            arcs.append((self.choices[history], self.choices[history[1:]], 0, probability))
        for history, word, probability in self.ngrams:
            longer = (*history, word)[-max(self.order - 1, 1) :]
            arcs.append(
                (self.choices[history], _longest(longer, self.durations), word + 1, probability)
            )
        arcs.sort()
        start = self.choices[(self.begin,) if self.order > 1 else ()]
        finals = np.full((self.num_states, 1), np.inf, dtype=np.float32)
        for history, probability in self.finals.items():
            finals[self.choices[history], 0] = -math.log(probability)
        source, target, label, probabilities = map(np.array, zip(*arcs, strict=True))
        return FstArrays(
            start=start,
            finals=finals,
            source=source,
            target=target,
            ilabel=label.astype(np.int32),
            olabel=label.astype(np.int32),
            weight=-np.log(probabilities)[:, None].astype(np.float32),
        )


def _longest(history: History, states: dict[History, int]) -> int:
    """Return the state of the longest ending of ``history`` that has one."""
    while history not in states:
        history = history[1:]
    return states[history]
