"""Features of a data folder's recordings, by kaldi-native-fbank: computed once, kept in an archive."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kaldiio
import numpy as np
import soundfile
from tqdm import tqdm

from espnet_quant4.hybrid.stage_record import Stage, listed_inputs
from espnet_quant4.text_files import read_pairs

CEPSTRA = 13
# Recordings that an error names.
MOST_SHOWN = 5
_WAV_SIZES = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)
_SIZE_OF_PIPES = 0x7FFFF000


class FeatureError(ValueError):
    """Audio that no features can be computed of; names the utterance and the file."""


def compute_features(
    data: Path,
    output: Path,
    features: Callable[[np.ndarray, int], np.ndarray],
    kind: str = "mfcc",
) -> None:
    """Write ``feats.ark`` and ``feats.scp``, unless they are there of the same recordings.

    One recording that cannot be used stops the stage, as in formatting: all are read, and the error
    names those that have to be mended or removed from the data folder.

    Args:
        data: a folder with ``wav.scp``, each entry an audio file.
        output: folder of the two files.
        features: of samples in -1..1 and their rate in Hz, such as `mfcc`.
        kind: says which features these are: of another kind they are computed anew.

    Raises:
        FeatureError: for audio that is missing, cut off, cannot be read, has no sample, more than one
            channel or another rate than the rest, or holds NaN or infinite samples.
        StageError: where the folder holds features of unknown origin.
    """
    audio = _listed_audio(data / "wav.scp")
    stage = Stage("features", output, ("feats.scp",), listed_inputs("wav.scp", data / "wav.scp"),
                  {"kind": kind})  # fmt: skip
    if not stage.begin(logging.info):
        return
    archive, index = str(output / "feats.ark"), output / "feats.scp.part"
    problems: list[str] = []
    first_rate: tuple[str, int] | None = None
    with kaldiio.WriteHelper(f"ark,scp:{archive},{index}") as writer:
        for utterance, (line, path) in tqdm(
            audio.items(), desc=f"features of {data.name}", unit="utt"
        ):
            try:
                samples, rate = read_audio(path)
                first_rate = first_rate or (utterance, rate)
                if rate != first_rate[1]:
                    raise FeatureError(f"{rate} Hz, but {first_rate[0]} has {first_rate[1]} Hz")
                values = features(samples, rate)
                if not len(values):
                    raise FeatureError(f"{len(samples)} samples are too few for a frame")
            except (OSError, RuntimeError, ValueError) as error:
                problems.append(f"line {line}: {utterance}: {path}: {error}")
            else:
                if not problems:
                    writer(utterance, values)
    if problems:
        index.unlink(missing_ok=True)
        shown = "; ".join(problems[:MOST_SHOWN])
        raise FeatureError(
            f"{data}/wav.scp: {len(problems)} of {len(audio)} recordings cannot be used: {shown}. Mend "
            "them, or remove these utterances from the data folder."
        )
    index.replace(output / "feats.scp")
    stage.finish()


def read_audio(path: str) -> tuple[np.ndarray, int]:
    """Read a recording.

    Returns:
        Samples ``(n,)`` float32 in -1..1, and their rate in Hz.

    Raises:
        FeatureError: for audio that is cut off, has no sample or more than one channel, or holds NaN or
            infinite samples.
        OSError, RuntimeError: where it cannot be read.
    """
    if path.endswith("|"):
        raise FeatureError("is a command; valid is an audio file. Format the data first (stage 3)")
    if not Path(path).is_file():
        raise FeatureError("no such file")
    with soundfile.SoundFile(path) as file:
        samples = file.read(dtype="float32")
        rate, frames, log = file.samplerate, file.frames, file.extra_info
    if _is_cut_off(log) or len(samples) != frames:
        raise FeatureError(f"is cut off: {len(samples)} samples are left. Copy or convert it anew")
    if samples.ndim != 1 or len(samples) == 0:
        raise FeatureError(
            f"shape {samples.shape}; valid is audio of one channel, of a sample or more. Format "
            "the data "
            "first (stage 3)"
        )
    bad = len(samples) - int(np.isfinite(samples).sum())
    if bad:
        first = int(np.argmin(np.isfinite(samples)))
        raise FeatureError(f"{bad} samples are NaN or infinite, the first at {first / rate:.3f} s")
    return samples, rate


def _is_cut_off(log: str) -> bool:
    """Return whether libsndfile's account of a file says that its end is missing."""
    if "File ended unexpectedly" in log:
        return True
    match = _WAV_SIZES.search(log)
    if match is None:
        return False
    stated, there = map(int, match.groups())
    # What is written to a pipe states a size that no file has.
    return there < stated < _SIZE_OF_PIPES


def _listed_audio(wav_scp: Path) -> dict[str, tuple[int, str]]:
    """Return line and path of each utterance's recording."""
    audio = {
        utterance: (line, os.path.expandvars(path)) for line, utterance, path in read_pairs(wav_scp)
    }
    if not audio:
        raise FeatureError(f"{wav_scp}: no recording in it; valid lines: UTTERANCE FILE")
    return audio


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
