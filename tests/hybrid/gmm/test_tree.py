import itertools

import numpy as np
import pytest

from espnet_quant4.hybrid.gmm.tree import Statistics, build_tree, questions
from espnet_quant4.hybrid.kaldi_files.tree import tree_bytes, tree_from_bytes

STATES = {1: 5, 2: 3, 3: 3, 4: 3, 5: 3}  # phone: states; 1 is silence
DIM = 3


def random_statistics(seed):
    """Triphones whose mean depends on whether the left neighbour is 2 or 3."""
    rng = np.random.default_rng(seed)
    found = {}
    for left, phone, right in itertools.product([0, 2, 3, 4, 5], [2, 3, 4, 5], [0, 2, 3, 4, 5]):
        for state in range(3):
            mean = np.array([phone, state, 4.0 if left in (2, 3) else 0.0])
            frames = mean + 0.3 * rng.standard_normal((60, DIM))
            found[(left, phone, right), state] = Statistics(60, frames.sum(0), (frames**2).sum(0))
    for state in range(5):
        frames = rng.standard_normal((200, DIM))
        found[(0, 1, 0), state] = Statistics(200, frames.sum(0), (frames**2).sum(0))
    return found


def test_splits_where_the_data_differs():
    tree = build_tree(random_statistics(0), STATES, unsplit=[1], leaves=5 + 2 * 12, least_gain=50)
    assert tree.num_pdfs == 5 + 2 * 12
    for phone, state in itertools.product([2, 3, 4, 5], range(3)):
        pdfs = {left: tree.pdf((left, phone, 4), state) for left in (2, 3, 4, 5)}
        assert pdfs[2] == pdfs[3] != pdfs[4] == pdfs[5]


def test_statistics_of_leaves_add_up():
    statistics = random_statistics(1)
    tree = build_tree(statistics, STATES, unsplit=[1], leaves=60, least_gain=1)
    total = Statistics.sum(list(statistics.values()))
    of_leaves = Statistics.sum(tree.statistics)
    assert of_leaves.count == pytest.approx(total.count)
    np.testing.assert_allclose(of_leaves.total, total.total)


def test_likelihood_is_that_of_the_gaussian():
    frames = np.random.default_rng(2).standard_normal((500, DIM)) * [1, 2, 3] + 1
    part = Statistics(500, frames.sum(0), (frames**2).sum(0))
    mean, variance = frames.mean(0), frames.var(0)
    each = -0.5 * (np.log(2 * np.pi * variance) + (frames - mean) ** 2 / variance)
    assert part.log_likelihood() == pytest.approx(each.sum())


def test_questions_group_what_is_similar():
    found = questions(random_statistics(3), [2, 3, 4, 5])
    assert {(2,), (3,), (4,), (5,)} <= set(found) and any(len(group) > 1 for group in found)


def test_kaldi_reads_the_tree():
    tree = build_tree(random_statistics(4), STATES, unsplit=[1], leaves=40, least_gain=1)
    kaldi = tree_from_bytes(tree.to_kaldi())
    assert (kaldi.context_width, kaldi.central_position) == (3, 1)
    assert kaldi.num_pdfs == tree.num_pdfs
    assert tree_bytes(kaldi) == tree.to_kaldi()
    for left, phone, right in itertools.product(range(6), STATES, range(6)):
        for state in range(STATES[phone]):
            found, pdf = kaldi.compute([left, phone, right], state)
            assert found and pdf == tree.pdf((left, phone, right), state)
