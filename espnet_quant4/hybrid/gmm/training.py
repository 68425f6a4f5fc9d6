"""Training of a GMM-HMM by Viterbi alignment and maximum likelihood, with mixtures that grow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from espnet_quant4.hybrid.gmm.acoustic_model import AcousticModel
from espnet_quant4.hybrid.gmm.alignment import Alignments, TrainingGraphs, align
from espnet_quant4.hybrid.gmm.splitting import split_mixtures
from espnet_quant4.hybrid.kaldi import kaldi_hmm_gmm
from espnet_quant4.hybrid.lang.lang_directory import Lang

# While models are still alike, a wider beam gains nothing.
FIRST_BEAM, BEAM = 6.0, 10.0

Features = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Schedule:
    """How training goes; the defaults are Kaldi's.

    Attributes:
        iterations: number of passes over the data.
        gaussians: how many there are in all in the end.
        grow_until: last iteration that adds Gaussians.
        realign: iterations before which the data is aligned anew.
        boost_silence: factor of the likelihood of silence in aligning.
        seed: of the directions in which Gaussians are split.
    """

    iterations: int = 35
    gaussians: int = 4000
    grow_until: int = 25
    realign: tuple[int, ...] = (10, 20, 30)
    boost_silence: float = 1.0
    seed: int = 0


MONOPHONE = Schedule(
    iterations=40,
    gaussians=1000,
    grow_until=30,
    realign=(*range(1, 11), 12, 14, 16, 18, 20, 23, 26, 29, 32, 35, 38),
)


def train(
    model: AcousticModel,
    graphs: TrainingGraphs,
    features: Features,
    alignments: Alignments,
    schedule: Schedule,
) -> Alignments:
    """Train a model in place from a first alignment.

    Args:
        model: with one Gaussian a pdf, or more.
        graphs: of the utterances.
        features: ``(frames, dim)`` float32 of each utterance.
        alignments: to start from, in the transition ids of ``model``.
        schedule: see there.

    Returns:
        The last alignment.
    """
    # Before models tell phones apart, aligning anew would lose the first alignment.
    gaussians = model.mixtures.num_gauss
    random = np.random.default_rng(schedule.seed)
    update(model, features, alignments, gaussians, random)
    step = max(0, schedule.gaussians - gaussians) / max(1, schedule.grow_until)
    progress = tqdm(range(1, schedule.iterations + 1), desc="GMM", unit="pass")
    for iteration in progress:
        if iteration in schedule.realign:
            with boosted_silence(model, graphs.lang, schedule.boost_silence):
                beam = FIRST_BEAM if iteration == 1 else BEAM
                alignments = align(model, graphs, features.items(), beam=beam)
        likelihood = update(model, features, alignments, round(gaussians), random)
        progress.set_postfix(
            gaussians=model.mixtures.num_gauss,
            log_likelihood=f"{likelihood:.2f}",
            failed=len(alignments.failed),
        )
        if iteration <= schedule.grow_until:
            gaussians += step
    return alignments


@contextmanager
def boosted_silence(model: AcousticModel, lang: Lang, factor: float) -> Iterator[None]:
    """Multiply the likelihood of silence within a block, so that pauses do not fall to phones."""
    khg = kaldi_hmm_gmm()
    _, pdfs = khg.get_pdfs_for_phones(model.transitions, lang.ids("silence"))

    def multiply(by: float) -> None:
        for pdf in pdfs:
            mixture = model.mixtures.get_pdf(pdf)
            mixture.set_weights(mixture.weights * np.float32(by))
            mixture.compute_gconsts()

    multiply(factor)
    try:
        yield
    finally:
        multiply(1 / factor)


def update(
    model: AcousticModel,
    features: Features,
    alignments: Alignments,
    gaussians: int,
    random: np.random.Generator,
) -> float:
    """Estimate transitions and mixtures, then split mixtures to ``gaussians`` in all.

    Returns:
        Log likelihood a frame before the update.
    """
    khg = kaldi_hmm_gmm()
    id2pdf = model.id2pdf
    flags = int(khg.GmmUpdateFlags.kGmmAll)
    statistics = khg.AccumAmDiagGmm()
    statistics.init(model.mixtures, flags)
    transition_counts = np.zeros(len(id2pdf), dtype=np.float64)
    occupancy = np.zeros(model.num_pdfs, dtype=np.float32)
    total, frames = 0.0, 0
    for utterance, ids in alignments.ids.items():
        pdfs = id2pdf[ids]
        transition_counts += np.bincount(ids, minlength=len(id2pdf))
        occupancy += np.bincount(pdfs, minlength=model.num_pdfs).astype(np.float32)
        add = statistics.accumulate_for_gmm
        for values, pdf in zip(features[utterance], pdfs.tolist(), strict=True):
            total += add(model.mixtures, values, pdf, 1.0)
        frames += len(ids)
    model.transitions.mle_update(transition_counts, khg.MleTransitionUpdateConfig())
    options = khg.MleDiagGmmOptions()
    khg.mle_am_diag_gmm_update(options, statistics, flags, model.mixtures)
    if gaussians > model.mixtures.num_gauss:
        split_mixtures(model, occupancy, gaussians, random)
    return total / max(1, frames)
