"""The table of a recipe's experiments: error rates, bits, sizes and speed of its systems."""

from __future__ import annotations

import datetime
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from espnet_quant4.report.scoring import Counts, align, count

_TIME = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3})")


def read_text(path: Path) -> dict[str, str]:
    """Read ``utterance text...`` lines; the text may be empty."""
    pairs = (line.rstrip("\n").partition(" ") for line in path.open(encoding="utf-8"))
    return {key: text for key, _, text in pairs}


def count_errors(reference: Path, hypothesis: Path) -> tuple[Counts, Counts]:
    """Return the word and the character counts of a decoded part.

    Characters include the space between words, as in ESPnet's own scoring.

    Raises:
        ValueError: where the two do not hold the same utterances.
    """
    wanted, found = read_text(reference), read_text(hypothesis)
    if wanted.keys() != found.keys():
        odd = sorted(wanted.keys() ^ found.keys())
        raise ValueError(
            f"{hypothesis}: {len(odd)} utterances are not in both it and {reference}, such as "
            f"{odd[0]}. Remove the file and decode again (stage 12)."
        )
    words, characters = Counts(), Counts()
    for key, text in wanted.items():
        words += count(align(text.split(), found[key].split()))
        characters += count(align(list(text), list(found[key])))
    return words, characters


def decoding_seconds(logs: Iterable[Path]) -> float:
    """Return the seconds that decoding took, summed over parallel jobs, without start-up.

    ESPnet logs ``speech length`` before each utterance and ``best hypo`` after it.
    """
    seconds = 0.0
    for log in logs:
        times = []
        for line in log.open(encoding="utf-8", errors="replace"):
            match = _TIME.search(line)
            if match and ("INFO: speech length:" in line or "INFO: best hypo:" in line):
                times.append(datetime.datetime.strptime(match.group(1), "%Y-%m-%d %H:%M:%S,%f"))
        if times:
            seconds += (times[-1] - times[0]).total_seconds()
    return seconds


def describe_model(system: Path, model: str) -> dict[str, Any]:
    """Return bits and sizes of a trained system; reads its ``config.yaml`` and checkpoint."""
    import torch
    from espnet2.tasks.asr import ASRTask

    import espnet_quant4.plugin
    from espnet_quant4.quantizers import Quantizer
    from espnet_quant4.report.model_size import measure

    espnet_quant4.plugin.register()
    built, _ = ASRTask.build_model_from_file(system / "config.yaml", system / model, "cpu")
    size = measure(built)
    activations = [
        m.bits for m in built.modules() if isinstance(m, Quantizer) and m.role == "activation"
    ]
    weights = [m.bits for m in built.modules() if isinstance(m, Quantizer) and m.role == "weight"]
    return {
        "bits": f"W{_most(weights)}A{_most(activations)}",
        "weight_bits": round(size.weight_bits, 2),
        "size_bytes": size.packed,
        "float32_bytes": size.float32,
        "parameters": sum(p.numel() for p in built.parameters()),
        "torch": torch.__version__,
    }


def _most(bits: Sequence[int]) -> int:
    """Return the bits that most quantizers have; 32 where there are none."""
    return max(set(bits), key=list(bits).count) if bits else 32


def collect(
    systems: Sequence[Path],
    parts: Sequence[str],
    dumpdir: Path,
    inference: str,
    model: str,
    sampling_rate: int,
) -> list[dict[str, Any]]:
    """Return one entry for each system and decoded part.

    Args:
        systems: experiment folders, such as ``exp/asr_tailored``.
        parts: decoded parts, such as ``test``.
        dumpdir: folder of the parts' data folders.
        inference: name of the decoding configuration.
        model: file name of the checkpoint that was decoded.
        sampling_rate: in Hz.
    """
    rows = []
    for system in systems:
        description = describe_model(system, model)
        for part in parts:
            folder = system / inference / part
            words, characters = count_errors(dumpdir / part / "text", folder / "text")
            samples = read_text(dumpdir / part / "utt2num_samples").values()
            audio = sum(int(n) for n in samples) / sampling_rate
            seconds = decoding_seconds(folder.glob("logdir/asr_inference.*.log"))
            rows.append(
                {
                    "system": system.name.removeprefix("asr_"),
                    "part": part,
                    **description,
                    "wer": round(words.error_rate, 2),
                    "cer": round(characters.error_rate, 2),
                    "ser": round(words.sentence_error_rate, 2),
                    "words": words.words,
                    "correct": words.correct,
                    "substitutions": words.substitutions,
                    "deletions": words.deletions,
                    "insertions": words.insertions,
                    "utterances": words.sentences,
                    "audio_seconds": round(audio, 1),
                    "rtf": round(seconds / audio, 3),
                }
            )
    return rows


def write_json(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the entries as a list of objects; an interrupted run leaves no half file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    partial.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


COLUMNS = {
    "system": "System",
    "part": "Part",
    "bits": "Bits",
    "wer": "WER %",
    "cer": "CER %",
    "words": "Words",
    "substitutions": "Sub",
    "deletions": "Del",
    "insertions": "Ins",
    "size": "Size MB",
    "rtf": "RTF",
}


def to_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the entries as a Markdown table that is aligned to be read as plain text too."""
    table = [list(COLUMNS.values())]
    for row in rows:
        cells = {**row, "size": f"{row['size_bytes'] / 1e6:.2f}"}
        table.append([str(cells[column]) for column in COLUMNS])
    widths = [max(len(line[i]) for line in table) for i in range(len(COLUMNS))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=False)) + " |"
        for line in table
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)
