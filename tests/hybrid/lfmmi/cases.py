"""Small graphs and batches for the tests of LF-MMI."""

import numpy as np
import torch
from hypothesis import strategies as st

from espnet_quant4.hybrid.lfmmi.denominator import estimate_denominator
from espnet_quant4.hybrid.lfmmi.state_graph import compile_graph
from espnet_quant4.hybrid.openfst import FstArrays

SEQUENCES = [[0, 0, 1, 2, 2, 1, 1], [0, 2, 2, 0, 1], [1, 1, 1, 0, 0]]


def named(sequences):
    return [(f"utt{i}", np.array(ids)) for i, ids in enumerate(sequences)]


def small_graph(order=2, num_pdfs=3, sequences=SEQUENCES):
    return compile_graph(estimate_denominator(named(sequences), num_pdfs, order))


def fst_of(arcs, finals, start=0):
    """An acceptor of arcs (source, target, label, probability) and finals {state: probability}."""
    arcs = sorted(arcs)
    num_states = max([start, *finals, *(a[0] for a in arcs), *(a[1] for a in arcs)]) + 1
    costs = np.full((num_states, 1), np.inf, dtype=np.float32)
    for state, probability in finals.items():
        costs[state, 0] = -np.log(probability)
    source, target, label, probability = (np.array(column) for column in zip(*arcs, strict=True))
    return FstArrays(
        start=start,
        finals=costs,
        source=source,
        target=target,
        ilabel=label.astype(np.int32),
        olabel=label.astype(np.int32),
        weight=-np.log(probability)[:, None].astype(np.float32),
    )


@st.composite
def acceptors(draw, num_states=4, num_pdfs=3):
    """Acceptors of a few states, with parallel arcs and with epsilon arcs to later states only."""
    states, labels = st.integers(0, num_states - 1), st.integers(0, num_pdfs)
    probabilities = st.floats(0.05, 1.0)
    arcs = draw(st.lists(st.tuples(states, states, labels, probabilities), min_size=3, max_size=10))
    arcs = [arc for arc in arcs if arc[2] > 0 or arc[0] < arc[1]]
    arcs.append((0, draw(states), num_pdfs, 0.5))
    finals = draw(st.dictionaries(states, probabilities, min_size=1, max_size=num_states))
    return fst_of(arcs, finals)


def random_logits(batch, frames, num_pdfs=3, seed=0, dtype=torch.float64, spread=2.0):
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(batch, frames, num_pdfs, generator=generator, dtype=dtype)
