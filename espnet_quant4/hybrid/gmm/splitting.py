"""Mixtures that grow: Gaussians of well-filled states are split in two.

How many each state gets, and how one is split, is Kaldi's (``GetSplitTargets``, ``DiagGmm::Split``).
``kaldi_hmm_gmm`` draws the shifts anew in each process; here a generator draws them, so that a training
can be repeated.
"""

from __future__ import annotations

import heapq

import numpy as np

from espnet_quant4.hybrid.gmm.acoustic_model import AcousticModel, new_mixture
from espnet_quant4.hybrid.kaldi import kaldi_hmm_gmm

POWER = 0.25
MIN_COUNT = 20.0  # frames that each Gaussian has at least
PERTURB = 0.01  # standard deviations


def split_targets(occupancy: np.ndarray, gaussians: int) -> list[int]:
    """Return how many Gaussians each state should have, ``gaussians`` in all if data allow.

    Args:
        occupancy: frames of each state.
        gaussians: in all.
    """
    counts, total = [1] * len(occupancy), len(occupancy)
    # Of equal shares the first state comes first, which Kaldi's queue leaves open.
    queue = [(-(float(frames) ** POWER), state) for state, frames in enumerate(occupancy)]
    heapq.heapify(queue)
    while queue and total < gaussians:
        state = heapq.heappop(queue)[1]
        # One that is too empty to be split now is so later too, and does not come back.
        if (counts[state] + 1) * MIN_COUNT < occupancy[state]:
            counts[state] += 1
            total += 1
            heapq.heappush(queue, (-(float(occupancy[state]) ** POWER) / counts[state], state))
    return counts


def split_mixture(
    weights: np.ndarray,
    means_invvars: np.ndarray,
    inv_vars: np.ndarray,
    target: int,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Halve the heaviest Gaussian, its halves a little apart, until there are ``target``.

    Args:
        weights: ``(n,)``.
        means_invvars: ``(n, dim)``, means over variances.
        inv_vars: ``(n, dim)``.
        target: number of Gaussians wanted; fewer than there are changes nothing.
        random: draws the directions.
    """
    while len(weights) < target:
        heaviest = int(np.argmax(weights))
        shift = PERTURB * random.normal(size=inv_vars.shape[1]) * np.sqrt(inv_vars[heaviest])
        weights, means_invvars = weights.copy(), means_invvars.copy()
        weights[heaviest] /= 2
        weights = np.append(weights, weights[heaviest])
        means_invvars = np.vstack([means_invvars, means_invvars[heaviest] + shift])
        means_invvars[heaviest] -= shift
        inv_vars = np.vstack([inv_vars, inv_vars[heaviest]])
    return weights, means_invvars, inv_vars


def split_mixtures(
    model: AcousticModel, occupancy: np.ndarray, gaussians: int, random: np.random.Generator
) -> None:
    """Split a model's mixtures, in place, to ``gaussians`` in all.

    Args:
        model: with as many mixtures as ``occupancy`` has states.
        occupancy: frames of each state.
        gaussians: in all.
        random: draws the directions in which halves part.
    """
    mixtures = kaldi_hmm_gmm().AmDiagGmm()
    for state, target in enumerate(split_targets(occupancy, gaussians)):
        mixture = model.mixtures.get_pdf(state)
        weights, means_invvars, inv_vars = split_mixture(
            np.array(mixture.weights),
            np.array(mixture.means_invvars),
            np.array(mixture.inv_vars),
            target,
            random,
        )
        mixtures.add_pdf(new_mixture(weights, means_invvars, inv_vars))
    model.mixtures = mixtures
