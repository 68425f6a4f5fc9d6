"""The table of a hybrid recipe's experiments: the GMM, the network in float and in 4 bits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from espnet_quant4.report.results import (
    decodings,
    describe_model,
    error_rates,
    score_texts,
    write_score,
)
from espnet_quant4.report.sclite import find_sclite, score_counts
from espnet_quant4.report.scoring import Counts, ScoringError
from espnet_quant4.text_files import read_json, read_text

# What was chosen on the development part, for all parts.
TUNED = Path("dev", "tuned.json")

Row = dict[str, Any]

COLUMNS = {
    "system": "System",
    "seed": "Seed",
    "part": "Part",
    "bits": "Bits",
    "inference": "Inference",
    "wer": "WER %",
    "words": "Words",
    "substitutions": "Sub",
    "deletions": "Del",
    "insertions": "Ins",
    "lm_scale": "LM scale",
    "word_insertion_penalty": "Penalty",
    "size": "Size MB",
    "rtf_acoustic": "RTF net",
    "rtf_search": "RTF search",
}


def collect(
    systems: Sequence[Path],
    parts: Sequence[str],
    dumpdir: Path,
    inference: str,
    model: str,
    gmm: Path | None = None,
) -> list[Row]:
    """Return one entry for each system, inference and decoded part; writes alignments beside each.

    Errors are counted by NIST's ``sclite`` where it is installed, and as it does otherwise.

    Args:
        systems: experiment folders, such as ``exp/hybrid_tailored``.
        parts: decoded parts, such as ``test``.
        dumpdir: folder of the parts' data folders.
        inference: name of the decoding configuration.
        model: file name of the checkpoint that was decoded.
        gmm: folder of the GMM that made the alignments, where it was decoded too.

    Raises:
        ScoringError, FileNotFoundError: where a part was not decoded, or not as a whole.
        TextFileError: for a file of a decoding that is no text.
    """
    from espnet_quant4.hybrid.task import HybridTask

    rows: list[Row] = []
    if gmm is not None:
        rows += _rows(gmm / inference, parts, dumpdir, {**describe_gmm(gmm), "inference": "float"})
    for system in systems:
        name = system.name.removeprefix("hybrid_")
        description = {
            "system": name,
            # How the recipe trained the FP32 model stands in front.
            "scheme": name.removeprefix("realigned_").removeprefix("lfmmi_"),
            **describe_model(system, model, HybridTask),
        }
        for folder, own in decodings(system, description, inference):
            rows += _rows(folder, parts, dumpdir, own)
    return rows


def describe_gmm(folder: Path) -> Row:
    """Return sizes of a GMM, from its ``final.mdl`` in Kaldi's text form: means, variances, weights."""
    text = read_text(folder / "final.mdl")
    dimension = re.search(r"<DIMENSION>\s+(\d+)", text)
    weights = re.findall(r"<WEIGHTS>\s+\[([^]]*)\]", text)
    if dimension is None or not weights:
        raise FileNotFoundError(
            f"{folder}/final.mdl: no GMM in Kaldi's text form; train it: stage 8"
        )
    gaussians = sum(len(values.split()) for values in weights)
    parameters = gaussians * (2 * int(dimension[1]) + 1)
    return {
        "system": "gmm",
        "scheme": None,
        "seed": None,
        "bits": "W32A32",
        "weight_bits": 32.0,
        "size_bytes": 4 * parameters,
        "float32_bytes": 4 * parameters,
        "parameters": parameters,
        "pdfs": len(weights),
    }


def _rows(folder: Path, parts: Sequence[str], dumpdir: Path, description: Row) -> list[Row]:
    return [
        {**description, "part": part, **_decoded_part(folder / part, dumpdir / part)}
        for part in parts
    ]


def _decoded_part(folder: Path, data: Path) -> Row:
    """Score one decoded part and write its alignments beside it."""
    scores = score_texts(data / "text", folder / "text")
    program = find_sclite()
    totals = {}
    for rate, result in scores.items():
        write_score(folder / f"score_{rate}", result)
        counts = score_counts(result, program) if program else result.counts
        totals[rate] = sum(counts.values(), Counts())
    # By number, for a run with more jobs may have left its own.
    jobs = range(1, 1 + int(_numbers(folder / "num_jobs", 1)[0]))
    acoustic, audio = real_time_factor(folder / f"logdir/output.{job}/seconds" for job in jobs)
    search, _ = real_time_factor(folder / f"logdir/search.{job}/seconds" for job in jobs)
    return {
        **error_rates(totals["wer"], totals["cer"]),
        "scorer": "sclite" if program else "built-in",
        **_tuned(folder.parent / TUNED),
        "audio_seconds": round(audio, 1) if audio else None,
        "rtf_acoustic": acoustic,
        "rtf_search": search,
    }


def _tuned(path: Path) -> Row:
    """Return what was chosen on the development part."""
    found = read_json(path)
    if not isinstance(found, dict) or not {"lm_scale", "word_insertion_penalty"} <= found.keys():
        raise ScoringError(f"{path}: {found!r}; valid is what hybrid-rescore writes: decode again")
    return found


def _numbers(path: Path, least: int) -> list[float]:
    """Return the numbers in a file that a decoding wrote, at least so many."""
    words = read_text(path).split()
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) < least or not all(0 <= number < float("inf") for number in numbers):
        raise ScoringError(
            f"{path}: {' '.join(words)[:80]!r}; valid are {least} number(s), none below 0. Remove the "
            "folder of the decoding and decode again."
        )
    return numbers


def real_time_factor(files: Iterable[Path]) -> tuple[float | None, float]:
    """Return (seconds spent a second of speech, seconds of speech) over files that hold both.

    None where there is no speech, as where a step does not write such a file.
    """
    spent = speech = 0.0
    for path in files:
        if path.is_file():
            seconds = _numbers(path, 2)
            spent, speech = spent + seconds[0], speech + seconds[1]
    return (round(spent / speech, 4) if speech else None), speech
