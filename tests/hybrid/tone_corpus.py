"""A corpus whose phones are bands of noise: what a GMM learns in seconds."""

import random
from pathlib import Path

import numpy as np
import soundfile

RATE = 8000
HOP = 80  # samples in 10 ms
NOISE = 0.02  # without it Gaussians become too narrow for any beam
PHONES = {"AA": 400.0, "IY": 900.0, "S": 2500.0, "M": 1500.0}  # Hz
LEXICON = {
    "MASS": ["M", "AA", "S"],
    "SEE": ["S", "IY"],
    "ME": ["M", "IY"],
    "AM": ["AA", "M"],
    "EASE": ["IY", "S"],
    "AH": ["AA"],
}


def say(words, rng):
    """Samples of words, silence around and often between them, and the phone of each 10 ms."""

    def noise(samples):
        return NOISE * rng.standard_normal(samples)

    def silence(frames):
        parts.append(noise(frames * HOP))
        labels.extend(["SIL"] * frames)

    parts, labels = [], []
    silence(14)
    for word in words:
        for phone in LEXICON[word]:
            frames = rng.integers(8, 16)
            spectrum = np.fft.rfft(rng.standard_normal(frames * HOP))
            distance = np.fft.rfftfreq(frames * HOP, 1 / RATE) - PHONES[phone]
            spectrum *= np.exp(-((distance / 200) ** 2))
            parts.append(np.fft.irfft(spectrum, frames * HOP) + noise(frames * HOP))
            labels.extend([phone] * frames)
        if rng.random() < 0.5:
            silence(10)
    silence(14)
    return np.concatenate(parts), labels


def write_corpus(folder: Path, utterances: int = 24, seed: int = 0) -> Path:
    """Write ``folder/data``, with ``phones`` of each frame, and ``folder/lexicon.txt``."""
    rng, choice = np.random.default_rng(seed), random.Random(seed)
    data = folder / "data"
    (data / "audio").mkdir(parents=True)
    tables = {"wav.scp": [], "text": [], "utt2spk": [], "phones": []}
    for number in range(utterances):
        speaker = f"s{number % 3}"
        name = f"{speaker}-{number:03d}"
        words = choice.choices(list(LEXICON), k=choice.randint(1, 4))
        path = data / "audio" / f"{name}.wav"
        samples, labels = say(words, rng)
        soundfile.write(path, samples, RATE)
        tables["phones"].append(f"{name} {' '.join(labels)}")
        tables["wav.scp"].append(f"{name} {path}")
        tables["text"].append(f"{name} {' '.join(words)}")
        tables["utt2spk"].append(f"{name} {speaker}")
    for name, rows in tables.items():
        (data / name).write_text("\n".join(sorted(rows)) + "\n")
    (folder / "lexicon.txt").write_text(
        "".join(f"{word} {' '.join(phones)}\n" for word, phones in LEXICON.items())
    )
    return data
