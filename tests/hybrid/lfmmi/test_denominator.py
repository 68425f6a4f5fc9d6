"""The estimated denominator graph: an interpolated n-gram of runs, worked out by hand."""

import itertools
import math

import numpy as np
import pytest
from hybrid.lfmmi.cases import SEQUENCES, fst_of, named
from hypothesis import example, given, settings
from hypothesis import strategies as st

from espnet_quant4.hybrid.lfmmi.denominator import (
    FALLBACK_DISCOUNT,
    count_ngrams,
    discount_of,
    estimate_denominator,
)
from espnet_quant4.hybrid.lfmmi.runs import collapse, expand
from espnet_quant4.hybrid.lfmmi.state_graph import compile_graph, for_training
from espnet_quant4.hybrid.openfst import FstFormatError

pdf_sequences = st.lists(
    st.lists(st.integers(0, 3), min_size=1, max_size=12), min_size=1, max_size=6
)


def probability(graph, labels):
    """Of a sequence of labels, by the matrices."""
    transition = graph.transition().to_dense()
    vector = graph.initial * (graph.pdfs == labels[0])
    for label in labels[1:]:
        vector = (vector @ transition) * (graph.pdfs == label)
    return float(vector @ graph.final)


def probability_of_fst(fst, labels):
    """The same by walking the arcs, epsilons one by one."""
    arcs = list(
        zip(
            fst.source, fst.target, fst.ilabel, np.exp(-fst.weight[:, 0].astype(float)), strict=True
        )
    )

    def from_state(state, rest):
        total = 0.0 if rest else math.exp(-fst.finals[state, 0])
        for source, target, label, weight in arcs:
            if source != state:
                continue
            if label == 0:
                total += weight * from_state(target, rest)
            elif rest and label == rest[0] + 1:
                total += weight * from_state(target, rest[1:])
        return total

    return from_state(fst.start, tuple(labels))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_compiling_keeps_the_probability_of_every_sequence(order):
    fst = estimate_denominator(named(SEQUENCES), 3, order)
    graph = compile_graph(fst)
    for length in (1, 2, 3):
        for labels in itertools.product(range(3), repeat=length):
            expected = probability_of_fst(fst, labels)
            assert expected > 0
            assert probability(graph, labels) == pytest.approx(expected, rel=1e-6)


def test_a_bigram_worked_out_by_hand():
    # Runs: <s> 0 1 </s>, <s> 0 2 </s>, <s> 0 1 </s>; pdf 0 has 6 frames in 3 runs.
    fst = estimate_denominator(named([[0, 0, 1], [0, 0, 0, 2], [0, 1, 1]]), 3, order=2)
    # Unigrams 0:3 1:2 2:1 </s>:3, no fallback: D1 = 1 / (1 + 2); bigrams (0,1):2, (0,2):1, (1,</s>):2,
    # (2,</s>):1, (<s>,0):3: D2 = 2 / (2 + 2 * 2).
    d1, d2 = 1 / 3, 1 / 3

    def unigram(count):
        return (count - d1) / 9 + d1 * 4 / 9 / 4

    def bigram(count, total, distinct, unigram_count):
        return max(count - d2, 0) / total + d2 * distinct / total * unigram(unigram_count)

    loop = {0: (6 - 3 + 1) / 8, 1: (3 - 2 + 1) / 5, 2: (1 - 1 + 1) / 3}
    begins = bigram(3, 3, 1, 3)
    goes_on = loop[0] + (1 - loop[0]) * d2 * 2 / 3 * unigram(3)  # or a new run of the same
    follows = (1 - loop[0]) * bigram(2, 3, 2, 2)
    ends = (1 - loop[1]) * bigram(2, 2, 1, 3)
    expected = begins * goes_on * follows * ends
    assert probability_of_fst(fst, [0, 0, 1]) == pytest.approx(expected, rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(sequences=pdf_sequences, order=st.sampled_from([1, 2, 3, 4]))
@example(sequences=[[0]], order=4)
def test_what_leaves_each_state_adds_up_to_one(sequences, order):
    fst = estimate_denominator(named(sequences), 4, order)
    out = np.bincount(fst.source, np.exp(-fst.weight[:, 0]), minlength=fst.num_states)
    np.testing.assert_allclose(out + np.exp(-fst.finals[:, 0]), 1, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(sequences=pdf_sequences, order=st.sampled_from([1, 2, 3]))
def test_every_pdf_id_follows_every_other(sequences, order):
    graph = compile_graph(estimate_denominator(named(sequences), 4, order))
    reached = graph.transition().to_dense() > 0
    for state in range(len(graph.pdfs)):
        assert set(graph.pdfs[reached[state]].tolist()) == {0, 1, 2, 3}


def test_smoothing_stays_sparse():
    generator = np.random.default_rng(0)
    sequences = [np.cumsum(generator.integers(1, 4, 200)) % 100 for _ in range(20)]
    fst = estimate_denominator(named(sequences), 100, 2)
    bigrams = len({pair for ids in sequences for pair in itertools.pairwise(ids.tolist())})
    # Beside bigrams: the first runs of utterances, and for each pdf id a loop, an arc out of it, one
    # to the shorter history and a unigram; one to the shorter history from the beginning.
    assert len(fst.source) == bigrams + len({ids[0] for ids in sequences}) + 4 * 100 + 1


def test_frequent_sequences_are_the_likely_ones():
    graph = compile_graph(estimate_denominator(named([[0, 1, 2]] * 9 + [[2, 1, 0]]), 3, 2))
    assert probability(graph, [0, 1, 2]) > 5 * probability(graph, [2, 1, 0]) > 0


def test_ngrams_are_counted_within_utterances():
    begin, end = 3, 4
    tokens = np.array([begin, 0, 1, end, begin, 1, end])
    ngrams, counts = count_ngrams(tokens, 2, 3)
    assert dict(zip(map(tuple, ngrams.tolist()), counts.tolist(), strict=True)) == {
        (begin, 0): 1, (0, 1): 1, (1, end): 2, (begin, 1): 1,
    }  # fmt: skip
    ngrams, counts = count_ngrams(tokens, 1, 3)
    assert dict(zip(ngrams[:, 0].tolist(), counts.tolist(), strict=True)) == {0: 1, 1: 2, end: 2}


def test_the_discount_needs_counts_of_one_and_of_two():
    assert discount_of(np.array([1, 1, 2, 5])) == 2 / 4
    assert discount_of(np.array([1, 1, 5])) == discount_of(np.array([2, 5])) == FALLBACK_DISCOUNT


def test_runs():
    pdfs, starts, ends = collapse(np.array([4, 4, 0, 4]))
    assert (pdfs.tolist(), starts.tolist(), ends.tolist()) == ([4, 0, 4], [0, 2, 3], [2, 3, 4])
    owner, rank = expand(np.array([2, 0, 1]))
    assert (owner.tolist(), rank.tolist()) == ([0, 0, 2], [0, 1, 0])


def test_training_begins_with_the_average_state_and_ends_anywhere():
    graph = compile_graph(fst_of([(0, 1, 1, 1.0), (1, 1, 1, 0.5), (1, 2, 2, 0.25), (2, 1, 1, 0.5)],
                                 {1: 0.25, 2: 0.5}))  # fmt: skip
    trained = for_training(graph)
    # By hand: of the paths that go on, a third leaves pdf 0 for pdf 1 and all come back.
    first, average = np.array([1.0, 0.0]), np.zeros(2)
    for _ in range(100):
        average += first / 100
        first = np.array([0.5 * first[0] + 0.5 * first[1], 0.25 * first[0]])
        first /= first.sum()
    np.testing.assert_allclose(trained.initial.numpy(), average, rtol=1e-9)
    assert graph.initial.tolist() == [1, 0] and trained.final.tolist() == [1, 1]


def test_a_leak_is_a_transition_to_the_beginning_from_everywhere():
    graph = compile_graph(estimate_denominator(named(SEQUENCES), 3, 2))
    plain, leaky = for_training(graph), for_training(graph, 0.25)
    difference = leaky.transition().to_dense() - plain.transition().to_dense()
    np.testing.assert_allclose(difference.numpy(), 0.25 * plain.initial.expand(3, 3).numpy())


@pytest.mark.parametrize(
    ("sequences", "options", "message"),
    [
        ([[0, 1, 3]], {}, r"utterance utt0: pdf id 3, its number 3; valid are 0 to 2.*num_pdfs"),
        ([[0], [-1]], {}, r"utterance utt1: pdf id -1"),
        ([[0], []], {}, r"utterance utt1: no pdf ids"),
        ([], {}, r"no utterance"),
        ([[0]], {"order": 5}, r"order: 5; valid are 1, 2, 3, 4"),
    ],
)
def test_bad_input(sequences, options, message):
    alignments = [(name, ids.astype(np.int64)) for name, ids in named(sequences)]
    with pytest.raises(ValueError, match=message):
        estimate_denominator(alignments, 3, **options)


def test_what_is_no_denominator_graph():
    with pytest.raises(FstFormatError, match="cycle"):
        compile_graph(fst_of([(0, 1, 0, 0.5), (1, 0, 0, 0.5), (1, 1, 1, 0.5)], {1: 0.5}))
    with pytest.raises(FstFormatError, match="without a label"):
        compile_graph(fst_of([(0, 1, 0, 0.5)], {1: 0.5}))
    graph = fst_of([(0, 1, 3, 0.5)], {1: 0.5})
    with pytest.raises(FstFormatError, match="state 0: input label 3, output label 7.*acceptor"):
        compile_graph(graph.with_labels(olabel=np.array([7], dtype=np.int32)))
