"""A made-up corpus in the layout of AN4's tables: words of phones that are bands of noise.

Every phone has two bands of its own, as vowels have formants; speakers differ in where these lie. So
it can be recognized, but by nothing that has not been trained.
"""

import io
import tarfile
from pathlib import Path

import numpy as np
import soundfile

RATE = 16000
# Hz, the middle of two bands.
PHONES = {
    "AH": (700, 1300),
    "IY": (300, 2400),
    "UW": (350, 900),
    "M": (200, 4000),
    "S": (5000, 6500),
    "T": (2500, 5500),
}
LEXICON = """\
EAT                  IY T
ME                   M IY
MOO                  M UW
SUM                  S AH M
SUM(2)               S UW M
TEAM                 T IY M
TOO                  T UW
US                   AH S
"""
PRONUNCIATIONS = [
    (line.split()[0].partition("(")[0], line.split()[1:]) for line in LEXICON.splitlines()
]
# AN4's own names: two of the development part's among the speakers of train.tsv.
SPEAKERS = {"train": ("fash", "mblw", "fbbh", "mcel", "mdxn", "fejs"), "test": ("fcaw", "mmxg")}


def speak(phones, pitch, random):
    """Samples of a word: each phone 60 to 120 ms."""
    pieces = []
    for phone in phones:
        samples = random.integers(int(0.06 * RATE), int(0.12 * RATE))
        frequency = np.fft.rfftfreq(samples, 1 / RATE)
        bands = sum(np.exp(-(((frequency - f * pitch) / 200) ** 2)) for f in PHONES[phone])
        noise = np.fft.rfft(random.normal(size=samples))
        pieces.append(0.3 * np.fft.irfft(bands * noise, samples))
    return np.concatenate(pieces)


def utterance(words, pitch, random):
    """``(text, samples)`` of random words with short silences between some of them."""

    def silence(shortest, longest):
        return 0.002 * random.normal(size=random.integers(shortest, longest))

    chosen = [PRONUNCIATIONS[i] for i in random.integers(len(PRONUNCIATIONS), size=words)]
    pieces = [silence(1600, 4800)]
    for _, phones in chosen:
        pieces.append(speak(phones, pitch, random))
        if random.random() < 0.5:
            pieces.append(silence(800, 3200))
    pieces.append(silence(1600, 4800))
    samples = np.concatenate(pieces)
    return " ".join(word for word, _ in chosen), samples + 0.002 * random.normal(size=len(samples))


def write_corpus(folder: Path, utterances_a_speaker=12, seed=0):
    """Write ``train.tsv``, ``test.tsv``, ``lexicon.txt`` and ``audio.tar``."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    (folder / "lexicon.txt").write_text(LEXICON)
    with tarfile.open(folder / "audio.tar", "w") as archive:
        for part, speakers in SPEAKERS.items():
            rows = ["utt\tspeaker\ttext"]
            for speaker in speakers:
                pitch = random.uniform(0.93, 1.07)
                for number in range(utterances_a_speaker):
                    text, samples = utterance(random.integers(2, 5), pitch, random)
                    name = f"an{number}-{speaker}-b"
                    rows.append(f"{name}\t{speaker}\t{text}")
                    content = io.BytesIO()
                    soundfile.write(content, samples, RATE, format="FLAC", subtype="PCM_16")
                    member = tarfile.TarInfo(f"audio/{part}/{speaker}/{name}.flac")
                    # Closing a FLAC goes back to its header, so the position is not the size.
                    member.size = content.getbuffer().nbytes
                    content.seek(0)
                    archive.addfile(member, content)
            (folder / f"{part}.tsv").write_text("\n".join(rows) + "\n")
