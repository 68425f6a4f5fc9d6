"""The stages of a GMM-HMM: monophones, triphones, alignment. Each writes a folder."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from espnet_quant4.hybrid.features.extraction import compute_features, mfcc
from espnet_quant4.hybrid.gmm.acoustic_model import (
    AcousticModel,
    new_mixture,
    new_transitions,
    read_topology,
)
from espnet_quant4.hybrid.gmm.alignment import (
    Alignments,
    TrainingGraphs,
    align,
    read_alignments,
    score_decodable,
    write_alignments,
)
from espnet_quant4.hybrid.gmm.features import load_features
from espnet_quant4.hybrid.gmm.flat_start import flat_alignments
from espnet_quant4.hybrid.gmm.phone_segments import (
    TransitionTable,
    convert_alignments,
    phone_segments,
)
from espnet_quant4.hybrid.gmm.training import MONOPHONE, Features, Schedule, train
from espnet_quant4.hybrid.gmm.transform import Transform, estimate_transform
from espnet_quant4.hybrid.gmm.tree import Statistics, Window, build_tree
from espnet_quant4.hybrid.kaldi import kaldi_hmm_gmm
from espnet_quant4.hybrid.kaldi_files.tree import tree_from_bytes
from espnet_quant4.hybrid.lang.lang_directory import SILENCE, Lang, read_transcripts
from espnet_quant4.hybrid.lang.lexicon import count_unknown, describe_unknown


class GmmError(ValueError):
    """Training or alignment that cannot go on; says why and what to look at."""


def features_of(data: Path, transform: Transform | None = None) -> dict[str, np.ndarray]:
    """Return features of a data folder, computed first where they are not there: ``DATA/mfcc``."""
    compute_features(data, data / "mfcc", mfcc)
    if transform is None:
        return dict(load_features(data, data / "mfcc"))
    return dict(load_features(data, data / "mfcc", transform.splice, transform.matrix))


def transcripts_of(data: Path, lang: Lang) -> dict[str, list[str]]:
    """Return a data folder's transcripts; a warning says which words have no pronunciation."""
    path = data / "text"
    transcripts = read_transcripts(path)
    known = lang.words.keys() - {lang.unknown_word}
    if unknown := count_unknown(transcripts, known):
        logging.warning(f"{path}: {describe_unknown(unknown, transcripts, known)}")
    return transcripts


def train_monophone(data: Path, lang: Lang, output: Path, schedule: Schedule = MONOPHONE) -> None:
    """Train a GMM-HMM of phones without context; see `flat_alignments` for how it starts."""
    khg = kaldi_hmm_gmm()
    features = features_of(data)
    transcripts = transcripts_of(data, lang)
    topology = read_topology(lang.topology)
    tree = khg.monophone_context_dependency(
        topology.phones, topology.get_phone_to_num_pdf_classes()
    )
    everything = np.concatenate(list(features.values()))
    model = AcousticModel(tree, new_transitions(tree, lang.topology), khg.AmDiagGmm())
    mean, variance = everything.mean(0), everything.var(0)
    for _ in range(tree.num_pdfs):
        model.mixtures.add_pdf(_gaussian(mean, variance))
    graphs = TrainingGraphs(model, lang, transcripts)
    first = flat_alignments(
        model.transitions,
        {utterance: values[:, 0] for utterance, values in features.items()},
        lang.pronounce(transcripts),
        lang.phones[SILENCE],
    )
    _check(first, data)
    last = train(model, graphs, features, first, schedule)
    _finish(output, model, align(model, graphs, features.items()), last)


def train_triphone(
    data: Path,
    lang: Lang,
    alignments: Path,
    output: Path,
    leaves: int = 400,
    schedule: Schedule | None = None,
    lda: bool = False,
) -> None:
    """Train a GMM-HMM of triphone states that a decision tree ties.

    Args:
        data: the training part.
        lang: the lang folder.
        alignments: folder of the model before, with its alignment of ``data``.
        output: folder of the new model.
        leaves: most pdfs.
        schedule: how mixtures grow.
        lda: whether frames with four to each side are turned by linear discriminant analysis instead
            of having differences appended.
    """
    khg = kaldi_hmm_gmm()
    before = AcousticModel.read(alignments)
    old = TransitionTable.of(before.transitions)
    aligned = read_alignments(alignments)
    transform = None
    if lda:
        raw = features_of(data, Transform.identity())
        transform = estimate_transform(raw, {u: before.id2pdf[i] for u, i in aligned.ids.items()})
        output.mkdir(parents=True, exist_ok=True)
        transform.write(output / "final.mat")
    features = features_of(data, transform)
    statistics = triphone_statistics(features, aligned, old, lang.ids("silence"))
    topology = read_topology(lang.topology)
    classes = topology.get_phone_to_num_pdf_classes()
    tree = build_tree(
        statistics,
        {phone: classes[phone] for phone in topology.phones},
        lang.ids("silence"),
        leaves,
    )
    context = tree_from_bytes(tree.to_kaldi())
    model = AcousticModel(context, new_transitions(context, lang.topology), khg.AmDiagGmm())
    everything = Statistics.sum(list(statistics.values()))
    for part in tree.statistics:
        # A state that was never seen takes the Gaussian of all frames.
        known = part if part.count > 1 else everything
        model.mixtures.add_pdf(_gaussian(known.total / known.count, known.variance()))
    converted = convert_alignments(aligned, old, tree, TransitionTable.of(model.transitions))
    graphs = TrainingGraphs(model, lang, transcripts_of(data, lang))
    last = train(model, graphs, features, converted, schedule or Schedule())
    _finish(output, model, align(model, graphs, features.items()), last)


def triphone_statistics(
    features: Features, alignments: Alignments, table: TransitionTable, silence: list[int]
) -> dict[tuple[Window, int], Statistics]:
    """Sum up the frames of each state of each triphone; of silence without regard to its neighbours."""
    sums: dict[tuple[Window, int], Statistics] = {}
    for utterance, ids in alignments.ids.items():
        values = features[utterance].astype(np.float64)
        segments = phone_segments(ids, table)
        phones = [0, *(phone for phone, _, _ in segments), 0]
        for position, (phone, begin, end) in enumerate(segments):
            window = (phones[position], phone, phones[position + 2])
            if phone in silence:
                window = (0, phone, 0)
            states = table.state[ids[begin:end]]
            for state in np.unique(states):
                mine = values[begin:end][states == state]
                part = Statistics(len(mine), mine.sum(0), (mine**2).sum(0))
                key = (window, int(state))
                sums[key] = sums[key] + part if key in sums else part
    return sums


def align_data(
    data: Path,
    lang: Lang,
    model: Path,
    output: Path,
    beam: float = 10.0,
    retry_beam: float = 40.0,
) -> Alignments:
    """Align a data folder with a trained model and write what a network trains on."""
    known = AcousticModel.read(model)
    graphs = TrainingGraphs(known, lang, transcripts_of(data, lang))
    features = features_of(data, _transform_of(model))
    result = align(known, graphs, features.items(), beam=beam, retry_beam=retry_beam)
    _check(result, data)
    _write_with_model(output, result, known, model)
    return result


def realign_data(
    scores: Mapping[str, np.ndarray],
    data: Path,
    lang: Lang,
    model: Path,
    output: Path,
    acoustic_scale: float = 0.1,
) -> Alignments:
    """Align with a network's scores instead of those of the mixtures.

    Args:
        scores: ``(frames, num_pdfs)`` float32 of each utterance: log posteriors less log priors.
        data: the data folder, for its transcripts.
        lang: the lang folder.
        model: folder with tree and transition model of the network's states.
        output: as of `align_data`.
        acoustic_scale: factor of the scores.
    """
    known = AcousticModel.read(model)
    graphs = TrainingGraphs(known, lang, transcripts_of(data, lang))
    decodable = score_decodable(known.id2pdf)
    result = align(known, graphs, scores.items(), decodable, acoustic_scale=acoustic_scale)
    _check(result, data)
    _write_with_model(output, result, known, model)
    return result


def log_likelihoods(data: Path, model: Path) -> Mapping[str, np.ndarray]:
    """Return ``(frames, num_pdfs)`` float32 log likelihoods of each utterance under the mixtures."""
    known = AcousticModel.read(model)
    mixtures = [known.mixtures.get_pdf(pdf) for pdf in range(known.num_pdfs)]
    weights = np.concatenate([m.gconsts for m in mixtures])
    means = np.concatenate([m.means_invvars for m in mixtures])
    variances = np.concatenate([m.inv_vars for m in mixtures])
    first = np.cumsum([0, *(m.num_gauss for m in mixtures[:-1])])
    result = {}
    for utterance, values in features_of(data, _transform_of(model)).items():
        each = weights + values @ means.T - 0.5 * (values**2) @ variances.T
        largest = np.maximum.reduceat(each, first, axis=1)
        spread = np.repeat(largest, [m.num_gauss for m in mixtures], axis=1)
        total = np.add.reduceat(np.exp(each - spread), first, axis=1)
        result[utterance] = (largest + np.log(total)).astype(np.float32)
    return result


def _transform_of(model: Path) -> Transform | None:
    """Return what features of a model are transformed by; None for differences."""
    path = model / "final.mat"
    return Transform.read(path) if path.exists() else None


def _write_with_model(
    output: Path, alignments: Alignments, known: AcousticModel, model: Path
) -> None:
    """Write alignments, and tree and model beside them, so that these can be understood alone."""
    write_alignments(output, alignments, known.id2pdf, known.num_pdfs)
    for name in ("tree", "final.mdl", "final.mat"):
        if not (model / name).exists():
            # One of an earlier model would be taken for this one's.
            (output / name).unlink(missing_ok=True)
        elif model.resolve() != output.resolve():
            shutil.copyfile(model / name, output / name)


def _gaussian(mean: np.ndarray, variance: np.ndarray) -> Any:
    inverse = 1 / variance
    return new_mixture(np.ones(1), (mean * inverse)[None], inverse[None])


def _finish(output: Path, model: AcousticModel, alignments: Alignments, last: Alignments) -> None:
    _check(alignments, output)
    write_alignments(output, alignments, model.id2pdf, model.num_pdfs)
    model.write(output)
    changed = [np.mean(ids != last.ids[u]) for u, ids in alignments.ids.items() if u in last.ids]
    logging.info(
        f"{output}: {model.num_pdfs} pdfs, {model.mixtures.num_gauss} Gaussians, "
        f"{len(alignments.ids)} utterances, log likelihood a frame "
        f"{alignments.log_likelihood / max(1, alignments.frames):.2f}, "
        f"{100 * float(np.mean(changed)):.1f}% of frames moved since the last alignment"
    )


def _check(alignments: Alignments, where: Path) -> None:
    for utterance, why in list(alignments.failed.items())[:10]:
        logging.warning(f"{where}: {utterance} is left out: {why}")
    if alignments.failed:
        logging.warning(f"{where}: {len(alignments.failed)} utterances are left out in all")
    if not alignments.ids:
        raise GmmError(
            f"{where}: no utterance could be aligned. Look at its transcripts, its sampling rate, and "
            "whether the lexicon fits."
        )
