"""Total scores over a graph against the enumeration of all state sequences."""

import pytest
import torch
from hybrid.lfmmi.cases import acceptors, random_logits, small_graph
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from espnet_quant4.hybrid.lfmmi.forward_backward import TotalScore
from espnet_quant4.hybrid.lfmmi.reference import total_by_enumeration
from espnet_quant4.hybrid.lfmmi.state_graph import compile_graph, for_training

LENGTHS = torch.tensor([4, 2, 1])


def enumerate_batch(graph, logits, lengths):
    utterances = zip(logits, lengths, strict=True)
    return torch.stack([total_by_enumeration(graph, u[:length]) for u, length in utterances])


@settings(max_examples=40, deadline=None)
@given(fst=acceptors(), leak=st.sampled_from([None, 0.0, 0.1]), seed=st.integers(0, 99))
def test_value_and_gradient_equal_the_enumeration(fst, leak, seed):
    graph = compile_graph(fst)
    assume(len(graph.pdfs) <= 5)
    if leak is not None:
        assume(graph.initial.sum() > 0)
        graph = for_training(graph, leak)
    logits = random_logits(3, 4, seed=seed).requires_grad_()
    expected = enumerate_batch(graph, logits, LENGTHS)
    totals = TotalScore(graph)(logits, LENGTHS)
    torch.testing.assert_close(totals, expected, rtol=1e-9, atol=1e-9)
    possible = expected > -torch.inf
    if possible.any():
        weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
        (wanted,) = torch.autograd.grad((expected * weights)[possible].sum(), logits)
        (ours,) = torch.autograd.grad((totals * weights)[possible].sum(), logits)
        torch.testing.assert_close(ours, wanted, rtol=1e-8, atol=1e-9)


def test_gradcheck():
    graph = for_training(small_graph(), 0.05)
    logits = random_logits(3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: TotalScore(graph)(x, LENGTHS), logits)


def test_posteriors_of_a_frame_sum_to_one():
    logits = random_logits(3, 6).float().requires_grad_()
    lengths = torch.tensor([6, 3, 1])
    TotalScore(for_training(small_graph(3)))(logits, lengths).sum().backward()
    inside = torch.arange(6) < lengths.unsqueeze(1)
    torch.testing.assert_close(logits.grad.sum(2), inside.float())
    assert (logits.grad >= 0).all()


@pytest.mark.parametrize("filling", [1e30, float("nan"), -float("inf")])
def test_padding_and_the_batch_around_change_nothing(filling):
    score = TotalScore(for_training(small_graph(), 1e-5))
    logits, lengths = random_logits(3, 9), torch.tensor([5, 9, 2])
    padding = torch.arange(9) >= lengths.unsqueeze(1)
    padded = logits.masked_fill(padding.unsqueeze(2), filling).requires_grad_()
    totals = score(padded, lengths)
    totals.sum().backward()
    for i, length in enumerate(lengths):
        alone = logits[i : i + 1, :length].clone().requires_grad_()
        total = score(alone, length[None])
        total.sum().backward()
        torch.testing.assert_close(totals[i : i + 1], total)
        torch.testing.assert_close(padded.grad[i, :length], alone.grad[0])
        assert (padded.grad[i, length:] == 0).all()


def test_float32_stays_exact_over_long_sequences_of_wide_scores():
    score = TotalScore(for_training(small_graph(), 1e-5))
    logits = random_logits(2, 400, spread=100.0).float().requires_grad_()
    lengths = torch.tensor([400, 300])
    totals = score(logits, lengths)
    totals.sum().backward()
    assert totals.isfinite().all() and logits.grad.isfinite().all()
    shifted = score(logits.detach() + 300, lengths)
    torch.testing.assert_close(shifted - 300 * lengths, totals.detach(), rtol=1e-6, atol=0.1)
    torch.testing.assert_close(
        totals.detach(), score(logits.detach().double(), lengths), rtol=1e-12, atol=1e-9
    )


def test_nan_reaches_its_own_total_only():
    logits = random_logits(3, 4)
    logits[1, 0, 2] = float("nan")
    totals = TotalScore(small_graph())(logits, LENGTHS)
    assert totals.isnan().tolist() == [False, True, False]


def test_it_adds_nothing_to_a_state_dict_and_moves_with_the_module():
    score = TotalScore(small_graph())
    assert not score.state_dict()
    assert all(buffer.device.type == "meta" for buffer in score.to("meta").buffers())
