"""Recordings for a recognizer: any format that libsndfile reads, at the model's sampling rate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import torch


class AudioError(ValueError):
    """A recording that cannot be recognized."""


def read_audio(path: str | Path, sampling_rate: int, channel: int | None = None) -> np.ndarray:
    """Read a recording.

    Args:
        path: of the file.
        sampling_rate: what to resample to, in Hz.
        channel: number of the channel, from 0; None mixes all.

    Returns:
        ``(samples,)`` float32, full scale 1.

    Raises:
        AudioError: for a file that is missing, no audio, empty, or without that channel, or holds NaN.
    """
    if not Path(path).is_file():
        raise AudioError(f"{path}: no such file")
    try:
        samples, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise AudioError(f"{path}: not audio that libsndfile reads: {error}") from error
    if not len(samples):
        raise AudioError(f"{path}: no samples")
    if channel is not None and not 0 <= channel < samples.shape[1]:
        raise AudioError(f"{path}: channel {channel}; valid are 0 to {samples.shape[1] - 1}")
    mono = samples.mean(axis=1) if channel is None else samples[:, channel]
    if not np.isfinite(mono).all():
        raise AudioError(f"{path}: holds NaN or infinite samples")
    if rate != sampling_rate:
        from torchaudio.functional import resample

        mono = resample(torch.from_numpy(np.ascontiguousarray(mono)), rate, sampling_rate).numpy()
    return np.ascontiguousarray(mono, dtype=np.float32)


def sampling_rate_of(frontend_conf: dict[str, object] | None) -> int:
    """Return the sampling rate in Hz of a frontend's options; 16000, ESPnet's default, without one."""
    rate = (frontend_conf or {}).get("fs", 16000)
    if isinstance(rate, str):
        digits = rate.lower().removesuffix("hz").strip()
        rate = float(digits[:-1]) * 1000 if digits.endswith("k") else float(digits)
    return int(float(str(rate)))
