"""Numerator lattices against the enumeration of all state sequences with the alignment's runs."""

import numpy as np
import pytest
import torch
from hybrid.lfmmi.cases import SEQUENCES, acceptors, fst_of, random_logits, small_graph
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from espnet_quant4.hybrid.lfmmi.forward_backward import TotalScore
from espnet_quant4.hybrid.lfmmi.lattice_score import lattice_score, scatter_logsumexp
from espnet_quant4.hybrid.lfmmi.numerator import NumeratorBuilder
from espnet_quant4.hybrid.lfmmi.reference import has_runs_of, total_by_enumeration
from espnet_quant4.hybrid.lfmmi.state_graph import compile_graph, for_training

ALIGNMENTS = [np.array(ids) for ids in ([0, 0, 1, 1, 2], [2, 0], [1], [1, 0, 0, 1])]


def numerators(graph, logits, alignments, tolerance, num_pdfs=3):
    return lattice_score(logits, NumeratorBuilder(graph, tolerance, num_pdfs).build(alignments))


def check_against_enumeration(graph, alignments, tolerance, seed):
    logits = random_logits(len(alignments), 5, seed=seed).requires_grad_()
    expected = torch.stack(
        [
            total_by_enumeration(graph, x[: len(ids)], torch.from_numpy(ids), tolerance)
            for x, ids in zip(logits, alignments, strict=True)
        ]
    )
    totals = numerators(graph, logits, alignments, tolerance)
    torch.testing.assert_close(totals, expected, rtol=1e-9, atol=1e-9)
    possible = expected > -torch.inf
    if possible.any():
        (wanted,) = torch.autograd.grad(expected[possible].sum(), logits)
        (ours,) = torch.autograd.grad(totals[possible].sum(), logits)
        torch.testing.assert_close(ours, wanted, rtol=1e-8, atol=1e-9)
    return possible


@settings(max_examples=40, deadline=None)
@given(
    fst=acceptors(),
    alignments=st.lists(
        st.lists(st.integers(0, 2), min_size=1, max_size=4).map(np.array), min_size=1, max_size=3
    ),
    tolerance=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_equals_the_enumeration_on_any_graph(fst, alignments, tolerance, seed):
    graph = compile_graph(fst)
    assume(len(graph.pdfs) <= 5)
    check_against_enumeration(graph, alignments, tolerance, seed)


@pytest.mark.parametrize("tolerance", [0, 1, 2, 9])
def test_equals_the_enumeration_on_an_estimated_graph(tolerance):
    graph = for_training(small_graph())
    assert check_against_enumeration(graph, ALIGNMENTS, tolerance, seed=tolerance).all()


def test_equals_the_enumeration_with_longer_histories():
    graph = for_training(small_graph(order=3, sequences=[[0, 0, 1, 1, 0], [0, 1]], num_pdfs=2))
    assert len(graph.pdfs) > 2  # pdf ids with more than one history
    alignments = [np.array(ids) for ids in ([0, 1, 1, 0], [1, 0, 1, 1], [0, 0, 0])]
    assert check_against_enumeration(graph, alignments, 1, seed=0).all()


def test_gradcheck():
    builder = NumeratorBuilder(for_training(small_graph(3)), 1, 3)
    lattices = builder.build(ALIGNMENTS)
    logits = random_logits(4, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: lattice_score(x, lattices), logits)


@pytest.mark.parametrize(
    ("labels", "tolerance", "accepted"),
    [
        ([0, 0, 1, 1, 1], 0, True),
        ([0, 1, 1, 1, 1], 0, False),
        ([0, 1, 1, 1, 1], 1, True),
        ([0, 0, 0, 0, 1], 1, False),
        ([0, 0, 0, 0, 1], 2, True),
        ([0, 0, 0, 0, 0], 9, False),  # a run has a frame at least
        ([0, 0, 1, 0, 1], 9, False),
    ],
)
def test_what_tolerance_means(labels, tolerance, accepted):
    alignment = [0, 0, 1, 1, 1]
    assert has_runs_of(labels, alignment, tolerance) is accepted
    only_labels = torch.full((1, 5, 3), -1e4, dtype=torch.float64)
    only_labels[0, torch.arange(5), torch.tensor(labels)] = 0
    total = numerators(for_training(small_graph()), only_labels, [np.array(alignment)], tolerance)
    assert bool(total > -1000) is accepted


def test_posteriors_of_a_frame_sum_to_one_and_padding_has_none():
    logits = torch.full((4, 5, 3), float("nan"))
    for i, ids in enumerate(ALIGNMENTS):
        logits[i, : len(ids)] = random_logits(1, len(ids), dtype=torch.float32)
    logits.requires_grad_()
    numerators(for_training(small_graph()), logits, ALIGNMENTS, 2).sum().backward()
    lengths = torch.tensor([len(ids) for ids in ALIGNMENTS])
    inside = torch.arange(5) < lengths.unsqueeze(1)
    torch.testing.assert_close(logits.grad.sum(2), inside.float())


def test_what_the_network_finds_impossible_is_forced_through():
    """Every frame of the alignment is 2000 nats worse than another pdf id."""
    alignment = np.repeat([0, 1, 2, 0], 10)
    logits = torch.zeros(1, 40, 3)
    logits[0, torch.arange(40), torch.from_numpy(alignment)] = -2000.0
    logits.requires_grad_()
    total = numerators(for_training(small_graph()), logits, [alignment], 0)
    assert -2000 * 40 - 200 < total.item() < -2000 * 40
    total.sum().backward()
    assert (logits.grad[0, torch.arange(40), torch.from_numpy(alignment)] == 1).all()


@settings(max_examples=40, deadline=None)
@given(
    ids=st.lists(st.integers(0, 3), min_size=1, max_size=30).map(np.array),
    order=st.sampled_from([1, 2, 3]),
    tolerance=st.integers(0, 6),
    seed=st.integers(0, 99),
)
def test_the_numerator_is_part_of_the_denominator(ids, order, tolerance, seed):
    """Also for runs and pdf ids (3) that were never seen, which smoothing has a path for."""
    graph = small_graph(order, num_pdfs=4)
    logits = random_logits(1, len(ids), num_pdfs=4, seed=seed, spread=5.0)
    numerator = numerators(for_training(graph), logits, [ids], tolerance, num_pdfs=4)
    wider = numerators(for_training(graph), logits, [ids], tolerance + 1, num_pdfs=4)
    denominator = TotalScore(for_training(graph))(logits, torch.tensor([len(ids)]))
    leaky = TotalScore(for_training(graph, 0.1))(logits, torch.tensor([len(ids)]))
    assert -torch.inf < numerator <= wider + 1e-9
    assert wider <= denominator + 1e-9
    assert denominator <= leaky + 1e-9


def test_an_alignment_without_a_path_has_no_probability_and_no_gradient():
    graph = compile_graph(fst_of([(0, 0, 1, 0.5), (0, 1, 2, 0.5), (1, 1, 2, 0.5)], {1: 1.0}))
    logits = random_logits(3, 3, num_pdfs=3).requires_grad_()
    alignments = [np.array(ids) for ids in ([0, 1, 1], [1, 0, 1], [2, 2, 2])]
    totals = numerators(graph, logits, alignments, 0)
    assert totals.isneginf().tolist() == [False, True, True]
    totals.sum().backward()
    assert (logits.grad[0].sum(1) == 1).all() and (logits.grad[1:] == 0).all()


def test_scatter_logsumexp_of_nothing_and_of_nan():
    values = torch.tensor([1.0, 2.0, -torch.inf, float("nan"), 0.0])
    result = scatter_logsumexp(values, torch.tensor([0, 0, 1, 2, 2]), 4)
    torch.testing.assert_close(result[0], torch.tensor([1.0, 2.0]).logsumexp(0))
    assert result[1] == -torch.inf and result[2].isnan() and result[3] == -torch.inf


def test_states_that_no_run_enters_are_left_out():
    """With longer histories most states of a pdf id belong to another run before it."""
    graph = for_training(small_graph(order=3))
    lattices = NumeratorBuilder(graph, 0, 3).build([np.array(SEQUENCES[0])])
    after_first_run = lattices.frame >= 2
    states_a_frame = torch.bincount(lattices.frame[after_first_run])[2:]
    assert states_a_frame.max() <= 2 < torch.bincount(graph.pdfs).max()
