"""Growing mixtures: Kaldi's numbers of Gaussians, and the same ones in every process."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("kaldi_hmm_gmm")
from espnet_quant4.hybrid.gmm.acoustic_model import AcousticModel, new_mixture
from espnet_quant4.hybrid.gmm.splitting import split_mixture, split_mixtures, split_targets
from espnet_quant4.hybrid.kaldi import kaldi_hmm_gmm


def mixtures(states, dim=2):
    found = kaldi_hmm_gmm().AmDiagGmm()
    for state in range(states):
        found.add_pdf(new_mixture(np.ones(1), np.full((1, dim), state), np.full((1, dim), 4.0)))
    return found


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=8, unique=True), st.integers(1, 60))
def test_as_many_for_each_state_as_kaldi_gives(occupancy, gaussians):
    occupancy = np.array(occupancy, dtype=np.float32)
    theirs = mixtures(len(occupancy))
    if gaussians > len(occupancy):
        theirs.split_by_count(
            state_occs=occupancy,
            target_components=gaussians,
            perturb_factor=0.01,
            power=0.25,
            min_count=20.0,
        )
    counts = [theirs.get_pdf(state).num_gauss for state in range(len(occupancy))]
    ours = split_targets(occupancy, gaussians)
    # Where shares tie, which of the states comes first is the queue's.
    assert sum(ours) == sum(counts)
    assert max(abs(one - other) for one, other in zip(ours, counts, strict=True)) <= 1


def test_halves_part_from_the_heaviest():
    weights, means, inverse = np.array([0.25, 0.75]), np.array([[0.0], [8.0]]), np.full((2, 1), 4.0)
    random = np.random.default_rng(0)
    shift = 0.01 * np.random.default_rng(0).normal(size=1) * 2
    found = split_mixture(weights, means, inverse, 3, random)
    np.testing.assert_allclose(found[0], [0.25, 0.375, 0.375])
    np.testing.assert_allclose(found[1], [[0.0], 8.0 - shift, 8.0 + shift])
    np.testing.assert_allclose(found[2], np.full((3, 1), 4.0))
    assert weights[1] == 0.75, "what was given stays"


def test_the_same_seed_gives_the_same_mixtures():
    made = []
    for seed in (1, 1, 2):
        model = AcousticModel(None, None, mixtures(2))
        split_mixtures(model, np.array([500.0, 900.0]), 7, np.random.default_rng(seed))
        assert model.mixtures.num_gauss == 7
        made.append(np.concatenate([model.mixtures.get_pdf(i).means_invvars for i in range(2)]))
    np.testing.assert_array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])
