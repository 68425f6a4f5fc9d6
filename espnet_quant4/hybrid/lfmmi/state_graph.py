"""An FSA over pdf ids as a hidden Markov model: states that emit one pdf id each, and matrices.

A state here is a state of the FSA together with the pdf id of the arc that it was entered by. From
one frame to the next a path leaves a state by epsilon arcs, to any state of the FSA, and enters
another by an arc with a label:

    transition = leave @ enter,  leave (S, N),  enter (N, S),  N states of the FSA

Both factors are sparse where their product, for a smoothed graph, is dense.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from espnet_quant4.hybrid.openfst import FstArrays, FstFormatError

LONGEST_EPSILON_PATH = 100
#: As in Kaldi's ``DenominatorGraph::SetInitialProbs``.
FRAMES_OF_INITIAL_AVERAGE = 100


@contextlib.contextmanager
def sparse_matrices() -> Iterator[None]:
    """Keep PyTorch from saying that sparse matrices are a beta feature whose indices it trusts.

    Their products have not changed since PyTorch 1.10, and the indices are made here.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse (CSR tensor support|invariant checks)")
        yield


@dataclass(frozen=True)
class StateGraph:
    """A hidden Markov model; all probabilities are float64.

    Attributes:
        pdfs: (S,) int64, the pdf id that each state emits.
        initial: (S,) probability of a state at the first frame.
        final: (S,) probability of ending after a frame in a state.
        leave: (S, N) sparse COO.
        enter: (N, S) sparse COO.
    """

    pdfs: torch.Tensor
    initial: torch.Tensor
    final: torch.Tensor
    leave: torch.Tensor
    enter: torch.Tensor

    @property
    def num_pdfs(self) -> int:
        """One more than the largest pdf id."""
        return int(self.pdfs.max()) + 1

    def transition(self) -> torch.Tensor:
        """Return ``(S, S)`` sparse COO, from a state to the next frame's."""
        return torch.sparse.mm(self.leave, self.enter).coalesce()


@sparse_matrices()
def compile_graph(fst: FstArrays) -> StateGraph:
    """Turn an acceptor with labels pdf id + 1 and epsilons (0) into states and matrices.

    Raises:
        FstFormatError: for a transducer, a graph without labels, and epsilon cycles.
    """
    if not np.array_equal(fst.ilabel, fst.olabel):
        wrong = int(np.flatnonzero(fst.ilabel != fst.olabel)[0])
        raise FstFormatError(
            f"arc from state {fst.source[wrong]}: input label {fst.ilabel[wrong]}, output label "
            f"{fst.olabel[wrong]}; a denominator graph is an acceptor of pdf ids + 1, as Kaldi's "
            "den.fst. A decoding graph, whose labels are transition ids and words, is none."
        )
    emits = fst.ilabel > 0
    if not emits.any():
        raise FstFormatError("a graph without a label other than epsilon; make it anew.")
    probability = torch.from_numpy(np.exp(-fst.weight[:, 0].astype(np.float64)))
    final = torch.from_numpy(np.exp(-fst.finals[:, 0].astype(np.float64)))
    source, target = torch.from_numpy(fst.source), torch.from_numpy(fst.target)
    emitting = torch.from_numpy(emits)
    labels = torch.from_numpy(fst.ilabel.astype(np.int64))[emitting]
    pairs, entered = torch.unique(
        torch.stack([target[emitting], labels - 1]), dim=1, return_inverse=True
    )
    nodes, states = fst.num_states, pairs.size(1)
    enter = _sparse(source[emitting], entered, probability[emitting], (nodes, states))
    epsilons = _sparse(source[~emitting], target[~emitting], probability[~emitting], (nodes, nodes))
    # Row S is the way out of the start.
    origins = torch.cat([pairs[0], torch.tensor([fst.start])])
    leave = _after_epsilons(origins, epsilons)
    start = _rows(leave, states, states + 1).to_dense()
    leave = _rows(leave, 0, states)
    return StateGraph(
        pdfs=pairs[1],
        initial=_times(start[0], enter),
        final=torch.mv(leave, final),
        leave=leave,
        enter=enter,
    )


def for_training(graph: StateGraph, leaky_hmm_coefficient: float = 0.0) -> StateGraph:
    """Return it as LF-MMI trains with it: utterances may begin and end anywhere.

    As in Kaldi, a path begins with the average distribution over the first frames, ends anywhere
    at no cost and, with the coefficient above 0, may begin anew after any frame.

    Args:
        graph: as `compile_graph` returns it.
        leaky_hmm_coefficient: probability of beginning anew, on top of the others.
    """
    leaving = torch.mv(graph.leave, torch.mv(graph.enter, torch.ones_like(graph.final)))
    normalizer = leaving + graph.final
    distribution = graph.initial / graph.initial.sum()
    average = torch.zeros_like(distribution)
    for _ in range(FRAMES_OF_INITIAL_AVERAGE):
        average += distribution / FRAMES_OF_INITIAL_AVERAGE
        following = _times(_times(distribution / normalizer, graph.leave), graph.enter)
        if not following.sum() > 0:  # no path is longer
            break
        distribution = following / following.sum()
    initial = average / average.sum()
    graph = replace(graph, initial=initial, final=torch.ones_like(graph.final))
    if leaky_hmm_coefficient == 0:
        return graph
    states = len(initial)
    to_leak = torch.full((states, 1), leaky_hmm_coefficient, dtype=torch.float64).to_sparse()
    return replace(
        graph,
        leave=torch.cat([graph.leave, to_leak], dim=1).coalesce(),
        enter=torch.cat([graph.enter, initial[None].to_sparse()], dim=0).coalesce(),
    )


def _after_epsilons(origins: torch.Tensor, epsilons: torch.Tensor) -> torch.Tensor:
    """Return ``(len(origins), N)``: the weight of all epsilon paths from each origin to each node."""
    rows = torch.arange(len(origins))
    step = _sparse(
        rows, origins, torch.ones(len(origins), dtype=torch.float64), (len(rows), len(epsilons))
    )
    total = step
    for _ in range(LONGEST_EPSILON_PATH):
        step = torch.sparse.mm(step, epsilons).coalesce()
        if step._nnz() == 0:
            return total.coalesce()
        total = total + step
    raise FstFormatError(
        f"more than {LONGEST_EPSILON_PATH} epsilon arcs in a row, or a cycle of them. Remove them "
        "with fstrmepsilon."
    )


def _sparse(
    rows: torch.Tensor, columns: torch.Tensor, values: torch.Tensor, size: tuple[int, int]
) -> torch.Tensor:
    """Return a COO matrix; values at the same place are summed."""
    return torch.sparse_coo_tensor(torch.stack([rows, columns]), values, size).coalesce()


def _rows(matrix: torch.Tensor, first: int, end: int) -> torch.Tensor:
    return torch.narrow_copy(matrix, 0, first, end - first).coalesce()


def _times(vector: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Return ``vector @ matrix`` for a sparse matrix."""
    return torch.mv(matrix.t(), vector)
