"""Make strings of digits from single recordings, with each speaker's own noise between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

DIGITS_A_STRING = (3, 7)
GAP_SECONDS = (0.05, 0.25)  # between two recordings, and before the first and after the last
FADE_SECONDS = 0.005
NOISE_PIECE_SECONDS = 0.02


@dataclass(frozen=True)
class Digit:
    """One recording: what is said, by whom, its number among the speaker's, float32 samples."""

    digit: int
    speaker: str
    index: int
    audio: Samples


def draw_strings(
    digits: Sequence[Digit], copies: int, random: np.random.Generator
) -> list[list[Digit]]:
    """Deal recordings out in strings of three to seven.

    Every recording is in ``copies`` strings, so no digit is more frequent than among the recordings. A
    last string that would be shorter than three takes from the one before.

    Args:
        digits: recordings of one speaker.
        copies: in how many strings each is.
        random: generator.
    """
    shortest, longest = DIGITS_A_STRING
    strings = []
    for _ in range(copies):
        deck = [digits[i] for i in random.permutation(len(digits))]
        while deck:
            length = int(random.integers(shortest, longest + 1))
            # What is left over must be enough for a string.
            if 0 < len(deck) - length < shortest:
                length = len(deck) if len(deck) <= longest else len(deck) - shortest
            strings.append(deck[:length])
            deck = deck[length:]
    return strings


def noise_pieces(digits: Sequence[Digit], sampling_rate: int) -> NDArray[np.float32]:
    """Return the quieter half of the recordings' last 20 ms: trimmed speech ends in room noise.

    Returns:
        float32 (pieces, samples of a piece), each without its mean.
    """
    size = round(NOISE_PIECE_SECONDS * sampling_rate)
    ends = np.stack([d.audio[-size:] for d in digits if len(d.audio) >= size])
    ends = ends - ends.mean(1, keepdims=True)
    loudness = (ends**2).mean(1)
    return ends[loudness <= np.median(loudness)]


def make_noise(samples: int, pieces: NDArray[np.float32], random: np.random.Generator) -> Samples:
    """Return noise of any length: pieces in random order, half over each other.

    Windows are square roots of Hann's, whose squares sum to one, so the power of uncorrelated pieces
    stays level.
    """
    size = pieces.shape[1]
    hop = size // 2
    window = np.sin(np.pi * (np.arange(size) + 0.5) / size).astype(np.float32)
    noise = np.zeros((samples // hop + 3) * hop + size, dtype=np.float32)
    for start in range(0, len(noise) - size + 1, hop):
        noise[start : start + size] += window * pieces[random.integers(len(pieces))]
    return noise[hop : hop + samples]


def concatenate(
    recordings: Sequence[Samples],
    pieces: NDArray[np.float32],
    sampling_rate: int,
    random: np.random.Generator,
) -> Samples:
    """Return recordings one after the other over a floor of noise in the gaps.

    Recordings fade in and out over 5 ms: trimmed ones begin within speech, and a jump would be a
    click.
    """
    fade = round(FADE_SECONDS * sampling_rate)
    ramp = (np.arange(fade, dtype=np.float32) + 0.5) / fade

    def gap() -> Samples:
        return make_noise(int(random.uniform(*GAP_SECONDS) * sampling_rate), pieces, random)

    result = [gap()]
    for recording in recordings:
        faded = recording.copy()
        length = min(fade, len(faded))
        faded[:length] *= ramp[:length]
        faded[len(faded) - length :] *= ramp[:length][::-1]
        result += [faded, gap()]
    return np.concatenate(result)
