"""Lattices of a search: the best different word sequences in them, with both parts of their costs.

``kaldifst`` has no lattice determinization (Povey et al., "Generating exact lattices in the WFST
framework", 2012).  Where only word sequences are asked for, each by its best path, determinizing
the acceptor of words with total costs as weights does; the path of each is then looked up.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from espnet_quant4.hybrid.kaldi import kaldifst
from espnet_quant4.hybrid.openfst import (
    DeterminizationError,
    FstArrays,
    determinize,
    to_kaldifst,
)

# Determinization takes memory exponential in a lattice's ambiguity: stop, prune, try again.
MAX_STATES = 100_000
_GRAPH, _ACOUSTIC = 0, 1


@dataclass(frozen=True)
class Hypothesis:
    """A recognized word sequence.

    Attributes:
        words: ids.
        acoustic_cost: minus the scores of its path, as the search saw them: with the acoustic scale.
        graph_cost: language model, pronunciations and transitions.
    """

    words: tuple[int, ...]
    acoustic_cost: float
    graph_cost: float

    @property
    def cost(self) -> float:
        """What the search minimizes."""
        return self.acoustic_cost + self.graph_cost


def nbest(lattice: FstArrays, number: int) -> list[Hypothesis]:
    """Return up to ``number`` different word sequences of a lattice, the best first.

    Args:
        lattice: raw, acyclic: weights are graph and acoustic costs, output labels words.
        number: how many, at least 1.
    """
    words = _words(lattice)
    best = kaldifst().shortest_path(_determinized(words), n=number)
    by_arc = _by_arc(lattice, words)
    paths = kaldifst().convert_nbest_to_vector(best)
    return sorted((_hypothesis(lattice, by_arc, path) for path in paths), key=lambda h: h.cost)


def prune(lattice: FstArrays, beam: float) -> FstArrays:
    """Remove arcs and final states on no path within ``beam`` of the best one.

    Args:
        lattice: acyclic.
        beam: of the total cost.
    """
    cost = lattice.weight.sum(axis=1, dtype=np.float64)
    finals = lattice.finals.sum(axis=1, dtype=np.float64)
    order = _topological_arcs(lattice)
    forward = np.full(lattice.num_states, np.inf)
    forward[lattice.start] = 0.0
    source, target = lattice.source.tolist(), lattice.target.tolist()
    for arc in order:
        reached = forward[source[arc]] + cost[arc]
        if reached < forward[target[arc]]:
            forward[target[arc]] = reached
    backward = finals.copy()
    for arc in reversed(order):
        rest = backward[target[arc]] + cost[arc]
        if rest < backward[source[arc]]:
            backward[source[arc]] = rest
    limit = backward[lattice.start] + beam
    kept = forward[lattice.source] + cost + backward[lattice.target] <= limit
    outside = forward + finals > limit
    return FstArrays(
        start=lattice.start,
        finals=np.where(outside[:, None], np.float32(np.inf), lattice.finals),
        source=lattice.source[kept],
        target=lattice.target[kept],
        ilabel=lattice.ilabel[kept],
        olabel=lattice.olabel[kept],
        weight=lattice.weight[kept],
    )


def _topological_arcs(lattice: FstArrays) -> list[int]:
    """Return the arcs in an order in which none comes before one that leads to it."""
    first = lattice.arcs_of_states().tolist()
    target = lattice.target.tolist()
    waiting = np.bincount(lattice.target, minlength=lattice.num_states).tolist()
    ready = [state for state, count in enumerate(waiting) if not count]
    order: list[int] = []
    while ready:
        state = ready.pop()
        for arc in range(first[state], first[state + 1]):
            order.append(arc)
            waiting[target[arc]] -= 1
            if not waiting[target[arc]]:
                ready.append(target[arc])
    return order


def _words(lattice: FstArrays) -> FstArrays:
    """Return the acceptor of the words, weighted with total costs."""
    return FstArrays(
        start=lattice.start,
        finals=lattice.finals.sum(axis=1, keepdims=True),
        source=lattice.source,
        target=lattice.target,
        ilabel=lattice.olabel,
        olabel=lattice.olabel,
        weight=lattice.weight.sum(axis=1, keepdims=True),
    )


def _determinized(words: FstArrays) -> Any:
    """Return the acceptor with one path a word sequence; prunes it where it grows too large."""
    beam = 8.0
    while True:
        fst = to_kaldifst(words)
        try:
            determinize(fst, MAX_STATES)
            return fst
        except DeterminizationError as error:
            logging.warning(
                f"lattice of {len(words.source)} arcs: {error}; n-best within a beam of {beam:g} only"
            )
            words, beam = prune(words, beam), beam / 2


def _by_arc(lattice: FstArrays, words: FstArrays) -> Any:
    """Return the transducer from arcs, counted from 1, to words."""
    arcs = np.arange(1, len(lattice.source) + 1, dtype=np.int32)
    fst = to_kaldifst(words.with_labels(ilabel=arcs))
    kaldifst().arcsort(fst, sort_type="olabel")
    return fst


def _hypothesis(lattice: FstArrays, by_arc: Any, path: Any) -> Hypothesis:
    """Look up the best path of a word sequence and add up its costs."""
    fsts = kaldifst()
    _, words, _, _ = fsts.get_linear_symbol_sequence(path)
    best = fsts.shortest_path(fsts.compose(by_arc, fsts.make_linear_acceptor(words)))
    _, arcs, _, _ = fsts.get_linear_symbol_sequence(best)
    taken = np.array(arcs, dtype=np.int64) - 1
    costs = lattice.weight[taken].sum(axis=0, dtype=np.float64)
    last = lattice.target[taken[-1]] if len(taken) else lattice.start
    costs = costs + lattice.finals[last]
    return Hypothesis(tuple(words), float(costs[_ACOUSTIC]), float(costs[_GRAPH]))
