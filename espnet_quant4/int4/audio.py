"""Recordings for a recognizer: any format that libsndfile reads, at the model's sampling rate."""

from __future__ import annotations

import io
import os
import stat
from importlib import import_module
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

# Weights of torchaudio's resampling filter: 32 MB. From 44101 to 16000 Hz it would take 6 GB.
_LARGEST_FILTER = 2**22
_FILTER_WIDTH = 6  # zero crossings on each side, torchaudio's default


class AudioError(ValueError):
    """A recording that cannot be recognized; the message begins with its name."""


def read_audio(path: str | Path, sampling_rate: int, channel: int | None = None) -> np.ndarray:
    """Read a recording.

    Args:
        path: of a file or a pipe, such as a shell's ``<(command)``, which is read to its end first.
        sampling_rate: what to resample to, in Hz.
        channel: number of the channel, from 0; None mixes all.

    Returns:
        ``(samples,)`` float32, full scale 1.

    Raises:
        AudioError: for what is missing, a folder, not to be read, no audio, empty, or without that
            channel, or holds NaN.
    """
    try:
        samples, rate = _decode(str(path))
    except OSError as error:
        problem = (error.strerror or str(error)).lower().replace(" or directory", "")
        raise AudioError(f"{path}: {problem}") from error
    if not len(samples):
        raise AudioError(f"{path}: no samples")
    if rate < 1:
        raise AudioError(f"{path}: a sampling rate of {rate} Hz; valid are 1 and above")
    if channel is not None and not 0 <= channel < samples.shape[1]:
        raise AudioError(f"{path}: channel {channel}; valid are 0 to {samples.shape[1] - 1}")
    mono = samples.mean(axis=1) if channel is None else samples[:, channel]
    if not np.isfinite(mono).all():
        raise AudioError(f"{path}: holds NaN or infinite samples")
    return _resampled(np.ascontiguousarray(mono, dtype=np.float32), rate, sampling_rate)


def _decode(path: str) -> tuple[np.ndarray, int]:
    """Return samples ``(n, channels)`` float32 and their rate in Hz."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise AudioError(
            f"{path}: is a folder; name its recordings, such as {path.rstrip('/')}/*.wav"
        )
    if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
        raise AudioError(f"{path}: is neither a file nor a pipe")
    with open(path, "rb") as opened:
        # Decoding goes back and forth, which a pipe cannot; and a name that ends in .raw would be
        # believed against what the file holds.
        source: Any = opened
        if not stat.S_ISREG(mode) or path.lower().endswith(".raw"):
            source = io.BytesIO(opened.read())
        try:
            samples, rate = soundfile.read(source, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            reason = getattr(error, "error_string", None) or str(error)
            raise AudioError(
                f"{path}: not audio that libsndfile reads ({reason.rstrip('.')}). Samples without a "
                "header need one first, such as by: sox -t raw -r 8000 -e signed -b 16 -c 1 IN OUT.wav"
            ) from error
    return samples, int(rate)


def _resampled(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Return samples ``(n,)`` float32 at another rate."""
    if rate == wanted:
        return samples
    old, new = rate // gcd(rate, wanted), wanted // gcd(rate, wanted)
    if new * (old + 2 * _FILTER_WIDTH * max(1, old // new)) > _LARGEST_FILTER:
        # Comes with ESPnet's librosa. Other rates keep the filter that numbers were measured with.
        soxr = import_module("soxr")
        converted = soxr.resample(samples, rate, wanted)
    else:
        from torchaudio.functional import resample

        converted = resample(torch.from_numpy(samples), rate, wanted).numpy()
    return np.ascontiguousarray(converted, dtype=np.float32)


def sampling_rate_of(frontend_conf: dict[str, object] | None) -> int:
    """Return the sampling rate in Hz of a frontend's options; 16000, ESPnet's default, without one."""
    rate = (frontend_conf or {}).get("fs", 16000)
    if isinstance(rate, str):
        digits = rate.lower().removesuffix("hz").strip()
        rate = float(digits[:-1]) * 1000 if digits.endswith("k") else float(digits)
    return int(float(str(rate)))
