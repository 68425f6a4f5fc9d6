"""MFCC of a data folder: computed once, normalized by speaker, with differences."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import kaldiio
import numpy as np
import soundfile
from tqdm import tqdm

FRAME_SHIFT = 0.01  # seconds
COEFFICIENTS = 13
# Regression over this many frames to each side, as in Kaldi's add-deltas.
DELTA_WINDOW = 2


class FeatureError(ValueError):
    """Audio that no features can be computed of; names the utterance and the file."""


def compute_features(data: Path, output: Path) -> None:
    """Write ``feats.ark`` and ``feats.scp``: 13 MFCC, 10 ms shift, ``round(seconds / 0.01)`` frames.

    Done already where ``feats.scp`` is newer than the data's ``wav.scp``.

    Args:
        data: a folder with ``wav.scp``, each entry an audio file.
        output: folder of the two files.

    Raises:
        FeatureError: for audio that cannot be read, has no sample or more than one channel.
    """
    audio = _read_table(data / "wav.scp")
    done = output / "feats.scp"
    if done.exists() and done.stat().st_mtime >= (data / "wav.scp").stat().st_mtime:
        return
    output.mkdir(parents=True, exist_ok=True)
    archive, index = str(output / "feats.ark"), output / "feats.scp.part"
    with kaldiio.WriteHelper(f"ark,scp:{archive},{index}") as writer:
        for utterance, path in tqdm(audio.items(), desc=f"features of {data.name}", unit="utt"):
            try:
                samples, rate = soundfile.read(path, dtype="float32")
            except (OSError, RuntimeError) as error:
                raise FeatureError(f"{data}/wav.scp: {utterance}: {path}: {error}") from error
            if samples.ndim != 1 or len(samples) == 0:
                raise FeatureError(
                    f"{data}/wav.scp: {utterance}: {path}: shape {samples.shape}; valid is audio of "
                    "one channel. Format the data first (stage 3)."
                )
            writer(utterance, mfcc(samples, rate))
    index.replace(done)


def mfcc(samples: np.ndarray, rate: int) -> np.ndarray:
    """Return MFCC ``(frames, 13)`` float32 of samples in -1..1, by kaldi-native-fbank."""
    import kaldi_native_fbank as knf

    options = knf.MfccOptions()
    options.frame_opts.samp_freq = rate
    options.frame_opts.dither = 0.0
    options.frame_opts.snip_edges = False
    options.mel_opts.num_bins = 23
    options.num_ceps = COEFFICIENTS
    options.use_energy = False
    computer = knf.OnlineMfcc(options)
    computer.accept_waveform(rate, (samples * 32768).tolist())
    computer.input_finished()
    frames = [computer.get_frame(i) for i in range(computer.num_frames_ready)]
    return np.array(frames, dtype=np.float32).reshape(-1, COEFFICIENTS)


def load_features(
    data: Path, folder: Path, splice: int = 0, transform: np.ndarray | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """Give features of every utterance, of mean 0 and variance 1 for each speaker.

    Then either differences of first and second order are appended, or frames beside it are, and a
    linear transform follows.

    Args:
        data: the data folder, for ``utt2spk``.
        folder: with what `compute_features` wrote.
        splice: frames to each side that are put beside a frame, for a transform.
        transform: ``(dim, (2 * splice + 1) * 13)``; None for differences.

    Yields:
        Utterance and ``(frames, 39)`` or ``(frames, dim)`` float32.
    """
    raw: Mapping[str, np.ndarray] = kaldiio.load_scp(str(folder / "feats.scp"))
    speakers = _read_table(data / "utt2spk")
    sums: dict[str, list[np.ndarray | int]] = {}
    for utterance in raw:
        values = raw[utterance].astype(np.float64)
        found = sums.setdefault(speakers.get(utterance, utterance), [0, 0, 0])
        found[0] += len(values)
        found[1] = found[1] + values.sum(0)
        found[2] = found[2] + (values**2).sum(0)
    for utterance in raw:
        count, total, squares = sums[speakers.get(utterance, utterance)]
        mean = total / count
        spread = np.sqrt(np.maximum(squares / count - mean**2, 1e-8))
        values = (raw[utterance] - mean) / spread
        if transform is None:
            yield utterance, with_deltas(values.astype(np.float32))
        else:
            yield utterance, (splice_frames(values, splice) @ transform.T).astype(np.float32)


def with_deltas(features: np.ndarray) -> np.ndarray:
    """Append regression coefficients of first and second order: ``(frames, 3 * dim)``."""
    first = _regression(features)
    return np.concatenate([features, first, _regression(first)], axis=1)


def splice_frames(features: np.ndarray, context: int) -> np.ndarray:
    """Put ``context`` frames to each side beside a frame; the ends are repeated."""
    padded = np.pad(features, ((context, context), (0, 0)), mode="edge")
    count = len(features)
    return np.concatenate([padded[i : i + count] for i in range(2 * context + 1)], axis=1)


def _regression(features: np.ndarray) -> np.ndarray:
    window = DELTA_WINDOW
    padded = np.pad(features, ((window, window), (0, 0)), mode="edge")
    count = len(features)
    shifted = {step: padded[window + step :][:count] for step in range(-window, window + 1)}
    total = sum(step * (shifted[step] - shifted[-step]) for step in range(1, window + 1))
    return (total / (2 * sum(step**2 for step in range(1, window + 1)))).astype(features.dtype)


def _read_table(path: Path) -> dict[str, str]:
    rows = (line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines())
    return {row[0]: os.path.expandvars(row[1].strip()) for row in rows if len(row) == 2}
