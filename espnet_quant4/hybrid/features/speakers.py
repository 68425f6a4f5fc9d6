"""Features of mean 0 and variance 1 for each speaker."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import kaldiio
import numpy as np

from espnet_quant4.hybrid.features.extraction import compute_features, filterbank
from espnet_quant4.hybrid.kaldi_files.archives import Matrices
from espnet_quant4.hybrid.stage_record import Stage, file_input, listed_inputs
from espnet_quant4.text_files import read_table


def normalized_by_speaker(
    features: Mapping[str, np.ndarray], utt2spk: Mapping[str, str]
) -> Iterator[tuple[str, np.ndarray]]:
    """Give each utterance's features with the mean and variance of its speaker taken out.

    Args:
        features: ``(frames, dim)`` of each utterance; read twice.
        utt2spk: an utterance that is not in it is a speaker of its own.

    Yields:
        Utterance and ``(frames, dim)`` float64.
    """
    sums: dict[str, list[np.ndarray | int]] = {}
    for utterance in features:
        values = features[utterance].astype(np.float64)
        found = sums.setdefault(utt2spk.get(utterance, utterance), [0, 0, 0])
        found[0] += len(values)
        found[1] = found[1] + values.sum(0)
        found[2] = found[2] + (values**2).sum(0)
    for utterance in features:
        count, total, squares = sums[utt2spk.get(utterance, utterance)]
        mean = total / count
        spread = np.sqrt(np.maximum(squares / count - mean**2, 1e-8))
        yield utterance, (features[utterance] - mean) / spread


def write_filterbanks(
    data: Path, output: Path, num_mels: int = 40, say: Callable[[str], object] = logging.info
) -> int:
    """Write what a network reads in place of waveforms: log mel energies, normalized by speaker.

    They stay where they were made of the same recordings and speakers.

    Args:
        data: a folder with ``wav.scp`` and ``utt2spk``.
        output: folder of ``feats.ark`` and ``feats.scp``; ``melNUM/`` in it holds them as computed.
        num_mels: energies a frame.
        say: told that they stay, or why they are made anew.

    Returns:
        Number of utterances.

    Raises:
        FeatureError: for audio that cannot be used.
        StageError: where the folder holds features of unknown origin.
    """
    inputs = listed_inputs("wav.scp", data / "wav.scp")
    inputs["utt2spk"] = file_input(data / "utt2spk")
    stage = Stage("hybrid-features", output, ("feats.scp",), inputs, {"num_mels": num_mels})
    if not stage.begin(say):
        return len(Matrices(output / "feats.scp"))
    plain = output / f"mel{num_mels}"
    compute_features(
        data, plain, lambda samples, rate: filterbank(samples, rate, num_mels), f"mel{num_mels}"
    )
    raw = Matrices(plain / "feats.scp")
    part = output / "feats.scp.part"
    with kaldiio.WriteHelper(f"ark,scp:{output}/feats.ark,{part}") as writer:
        for utterance, values in normalized_by_speaker(raw, read_table(data / "utt2spk")):
            writer(utterance, values.astype(np.float32))
    part.replace(output / "feats.scp")
    stage.finish()
    return len(raw)
