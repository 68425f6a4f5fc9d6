"""Features of a data folder's recordings, by kaldi-native-fbank: computed once, kept in an archive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import kaldiio
import numpy as np
import soundfile
from tqdm import tqdm

from espnet_quant4.text_files import read_table

CEPSTRA = 13


class FeatureError(ValueError):
    """Audio that no features can be computed of; names the utterance and the file."""


def compute_features(
    data: Path, output: Path, features: Callable[[np.ndarray, int], np.ndarray]
) -> None:
    """Write ``feats.ark`` and ``feats.scp``.

    Done already where ``feats.scp`` is newer than the data's ``wav.scp``.

    Args:
        data: a folder with ``wav.scp``, each entry an audio file.
        output: folder of the two files.
        features: of samples in -1..1 and their rate in Hz, such as `mfcc`.

    Raises:
        FeatureError: for audio that cannot be read, has no sample or more than one channel.
    """
    audio = read_table(data / "wav.scp")
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
            writer(utterance, features(samples, rate))
    index.replace(done)


def mfcc(samples: np.ndarray, rate: int) -> np.ndarray:
    """Return 13 MFCC a frame, ``(round(seconds / 0.01), 13)`` float32, of samples in -1..1."""
    import kaldi_native_fbank as knf

    options = knf.MfccOptions()
    _set_frames(options, rate)
    options.mel_opts.num_bins = 23
    options.num_ceps = CEPSTRA
    options.use_energy = False
    return _compute(knf.OnlineMfcc(options), samples, rate, CEPSTRA)


def filterbank(samples: np.ndarray, rate: int, num_mels: int = 40) -> np.ndarray:
    """Return log mel energies, ``(round(seconds / 0.01), num_mels)`` float32, of samples in -1..1."""
    import kaldi_native_fbank as knf

    options = knf.FbankOptions()
    _set_frames(options, rate)
    options.mel_opts.num_bins = num_mels
    return _compute(knf.OnlineFbank(options), samples, rate, num_mels)


def _set_frames(options: Any, rate: int) -> None:
    options.frame_opts.samp_freq = rate
    options.frame_opts.dither = 0.0
    options.frame_opts.snip_edges = False


def _compute(computer: Any, samples: np.ndarray, rate: int, size: int) -> np.ndarray:
    computer.accept_waveform(rate, (samples * 32768).tolist())
    computer.input_finished()
    frames = [computer.get_frame(i) for i in range(computer.num_frames_ready)]
    return np.array(frames, dtype=np.float32).reshape(-1, size)
