"""A small hybrid corpus: each state of the "speech" is a tone, its pdf id one a 10 ms frame."""

from pathlib import Path

import numpy as np
import soundfile
import yaml

SAMPLING_RATE = 8000
HOP = 80
NUM_PDFS = 4
TONES = (300, 800, 1600, 2800)  # Hz, by pdf id

CONFIG = {
    "frontend_conf": {"fs": "8k", "n_fft": 256, "win_length": 200, "hop_length": HOP, "n_mels": 10},
    "normalize": "utterance_mvn",
    "preencoder_conf": {"deltas": 1},
    "encoder": "quant_rnn",
    "encoder_conf": {
        "num_layers": 2,
        "hidden_size": 12,
        "output_size": 12,
        "use_projection": False,
    },
    "model_conf": {"bottleneck_size": 8},
    "optim": "adam",
    "optim_conf": {"lr": 0.01},
    "batch_type": "unsorted",
    "batch_size": 4,
    "num_workers": 0,
    "num_att_plot": 0,
    "use_tensorboard": False,
    "use_matplotlib": False,
    "keep_nbest_models": 1,
    "max_epoch": 2,
}


def utterance(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return samples ``(n,)`` float32 and the pdf ids ``(round(n / HOP),)`` of one utterance."""
    rng = np.random.default_rng(seed)
    ids = np.repeat(rng.integers(0, NUM_PDFS, size=6), rng.integers(6, 12, size=6))
    samples = np.repeat(np.array(TONES)[ids], HOP) / SAMPLING_RATE
    # Half a hop more, as real recordings do not end with a frame.
    samples = np.append(samples, np.full(HOP // 2 - 1, samples[-1]))
    tone = 0.3 * np.sin(2 * np.pi * np.cumsum(samples))
    return (tone + 0.02 * rng.standard_normal(len(tone))).astype(np.float32), ids


def write_corpus(folder: Path, utterances: int = 8, **changes) -> Path:
    """Write wav.scp, pdf_ids, num_pdfs, pdf_counts, speech_shape and config.yaml; return the folder."""
    counts = np.zeros(NUM_PDFS, dtype=int)
    lines: dict[str, list[str]] = {"wav.scp": [], "pdf_ids": [], "speech_shape": []}
    for number in range(utterances):
        samples, ids = utterance(number)
        name, path = f"utt{number}", folder / f"utt{number}.wav"
        soundfile.write(path, samples, SAMPLING_RATE)
        lines["wav.scp"].append(f"{name} {path}")
        lines["pdf_ids"].append(f"{name} {' '.join(map(str, ids))}")
        lines["speech_shape"].append(f"{name} {len(samples)}")
        counts += np.bincount(ids, minlength=NUM_PDFS)
    for name, content in lines.items():
        (folder / name).write_text("".join(f"{line}\n" for line in content))
    (folder / "num_pdfs").write_text(f"{NUM_PDFS}\n")
    (folder / "pdf_counts").write_text(f"[ {' '.join(map(str, counts))} ]\n")
    (folder / "config.yaml").write_text(yaml.safe_dump({**CONFIG, **changes}))
    return folder


def training_options(corpus: Path, output: Path) -> list[str]:
    """Return the options of a training on the corpus, which is its own validation data."""
    options = ["--config", str(corpus / "config.yaml"), "--num_pdfs", str(corpus / "num_pdfs")]
    options += ["--output_dir", str(output), "--ngpu", "0"]
    for part in ("train", "valid"):
        for data in ("wav.scp,speech,sound", "pdf_ids,pdf_ids,text_int"):
            options += [f"--{part}_data_path_and_name_and_type", f"{corpus}/{data}"]
        options += [f"--{part}_shape_file", str(corpus / "speech_shape")]
    return options
