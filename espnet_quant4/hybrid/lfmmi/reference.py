"""The definition: every sequence of states, one after the other. Exponential; for tests.

What `TotalScore` and `lattice_score` compute must equal it.
"""

from __future__ import annotations

import itertools

import torch

from espnet_quant4.hybrid.lfmmi.runs import collapse
from espnet_quant4.hybrid.lfmmi.state_graph import StateGraph


def total_by_enumeration(
    graph: StateGraph,
    logits: torch.Tensor,
    alignment: torch.Tensor | None = None,
    tolerance: int = 0,
) -> torch.Tensor:
    """Return the log of the summed probability of all state sequences of one utterance.

    Args:
        graph: a hidden Markov model.
        logits: ``(T, P)`` float, logarithms of scores.
        alignment: ``(T,)`` int64 pdf ids; if given, only sequences whose runs are the alignment's
            count, with no boundary further than ``tolerance`` frames from the alignment's.
        tolerance: in frames.

    Returns:
        A scalar in nats; minus infinity where there is no such sequence.
    """
    transition = graph.transition().to_dense()
    pdfs = graph.pdfs.tolist()
    scores = [logits.new_full((), -torch.inf)]
    for states in itertools.product(range(len(pdfs)), repeat=len(logits)):
        labels = [pdfs[state] for state in states]
        if alignment is not None and not has_runs_of(labels, alignment.tolist(), tolerance):
            continue
        probability = graph.initial[states[0]] * graph.final[states[-1]]
        for here, there in itertools.pairwise(states):
            probability = probability * transition[here, there]
        if probability > 0:
            emitted = logits[torch.arange(len(labels)), torch.tensor(labels)]
            scores.append(probability.log() + emitted.sum())
    return torch.logsumexp(torch.stack(scores), 0)


def has_runs_of(labels: list[int], alignment: list[int], tolerance: int) -> bool:
    """Whether ``labels`` have the runs of ``alignment``, boundaries moved by ``tolerance`` at most."""
    ours, starts, _ = collapse(torch.tensor(labels).numpy())
    theirs, their_starts, _ = collapse(torch.tensor(alignment).numpy())
    return ours.tolist() == theirs.tolist() and bool(
        (abs(starts - their_starts) <= tolerance).all()
    )
