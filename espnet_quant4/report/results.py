"""The table of a recipe's experiments: error rates, bits, sizes and speed of its systems."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet_quant4 import text_files
from espnet_quant4.report.espnet_log import real_time_factor
from espnet_quant4.report.scoring import Counts, Score, ScoringError, format_score, score
from espnet_quant4.text_files import read_pairs, write_lines


def read_text(path: Path) -> dict[str, str]:
    """Read ``utterance text...`` lines; the text may be empty.

    Raises:
        TextFileError, OSError: for an utterance that stands twice, and what is no text file; see
            `read_pairs`.
    """
    return {key: text for _, key, text in read_pairs(path)}


def characters(text: str) -> list[str]:
    """Cut a text into characters as ESPnet does for scoring: a space is a token too."""
    return ["<space>" if character == " " else character for character in text.strip()]


def score_texts(reference: Path, hypothesis: Path) -> dict[str, Score]:
    """Align a decoded part with its reference, by words (``wer``) and characters (``cer``).

    Raises:
        ScoringError: where the two do not hold the same utterances, or the reference has no word.
        TextFileError, OSError: as `read_text`.
    """
    wanted, found = read_text(reference), read_text(hypothesis)
    if not any(wanted.values()):
        lines = f"{len(wanted)} utterances without words" if wanted else "no utterance"
        raise ScoringError(
            f"{reference}: the reference holds {lines}, so there is no error rate. Valid is a line "
            "for each utterance: its name and the words that were said."
        )
    return {
        rate: score(
            {name: list(cut(text)) for name, text in wanted.items()},
            {name: list(cut(text)) for name, text in found.items()},
            where=str(hypothesis),
        )
        for rate, cut in (("wer", str.split), ("cer", characters))
    }


def write_score(folder: Path, result: Score) -> None:
    """Write ``ref.trn``, ``hyp.trn`` (what ``sclite`` reads) and ``result.txt``, as ESPnet does."""
    for name, side in (("ref.trn", 0), ("hyp.trn", 1)):
        write_lines(
            folder / name,
            (
                f"{' '.join(token for pair in pairs if (token := pair[side]) is not None)} ({key})"
                for key, pairs in result.alignments.items()
            ),
        )
    text_files.write_text(folder / "result.txt", format_score(result))


def describe_model(system: Path, model: str, task: Any = None) -> dict[str, Any]:
    """Return seed, bits and sizes of a trained system; reads its ``config.yaml`` and checkpoint.

    Args:
        system: experiment folder.
        model: file name of the checkpoint.
        task: ESPnet's class of the task that trained it; None: speech recognition.

    Raises:
        ScoringError: where no seed is in the configuration.
        ConfigurationError, CheckpointError, TextFileError, OSError: as `load_trained_model`.
    """
    import torch
    from espnet2.tasks.asr import ASRTask

    from espnet_quant4.quantizers import Quantizer
    from espnet_quant4.report.model_size import measure
    from espnet_quant4.trained_model import load_trained_model

    built, train_args = load_trained_model(task or ASRTask, system / "config.yaml", system / model)
    if not isinstance(getattr(train_args, "seed", None), int):
        raise ScoringError(
            f"{system}/config.yaml: no seed in it, by which the tables tell runs apart; valid is the "
            "number that it was trained with, such as seed: 777"
        )
    size = measure(built)
    activations = [
        m.bits for m in built.modules() if isinstance(m, Quantizer) and m.role == "activation"
    ]
    weights = [m.bits for m in built.modules() if isinstance(m, Quantizer) and m.role == "weight"]
    return {
        "seed": train_args.seed,
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
    """Return one entry for each system, inference and decoded part; writes alignments beside each.

    Args:
        systems: experiment folders, such as ``exp/asr_tailored``.
        parts: decoded parts, such as ``test``; with ESPnet's ``asr.sh`` the validation set is
            ``org/dev``, which the table calls ``dev``.
        dumpdir: folder of the parts' data folders.
        inference: name of the decoding configuration.
        model: file name of the checkpoint that was decoded.
        sampling_rate: in Hz.
    """
    rows = []
    for system in systems:
        description = describe_model(system, model)
        for folder, own in decodings(system, description, inference):
            for part in parts:
                decoded = _decoded_part(folder / part, dumpdir / part, sampling_rate)
                name = system.name.removeprefix("asr_")
                rows.append(
                    {"system": name, "scheme": name, "part": Path(part).name, **own, **decoded}
                )
    return rows


def decodings(
    system: Path, description: Mapping[str, Any], inference: str
) -> list[tuple[Path, dict[str, Any]]]:
    """Return the folders of a system's decodings, each with the system's description for it.

    A quantized system is decoded in float (``emulated``), on codes (``int4``, in a folder of that
    ending, beside which lies ``model.int4``), or both; any other once.

    Args:
        system: experiment folder.
        description: what `describe_model` returns.
        inference: name of the decoding configuration.
    """
    quantized = description["weight_bits"] < 32
    kinds = {"emulated" if quantized else "float": inference}
    if quantized:
        kinds["int4"] = f"{inference}_int4"
    # A recipe may leave out one of the two.
    found = {kind: name for kind, name in kinds.items() if (system / name).is_dir()}
    result = []
    for kind, name in (found or kinds).items():
        own = {"inference": kind, **description}
        if kind == "int4":
            own["size_bytes"] = (system / "model.int4").stat().st_size
        result.append((system / name, own))
    return result


def error_rates(words: Counts, characters: Counts) -> dict[str, Any]:
    """Return the rates in percent and the counts of words of a decoded part."""
    return {
        "wer": round(words.error_rate, 2),
        "cer": round(characters.error_rate, 2),
        "ser": round(words.sentence_error_rate, 2),
        "words": words.words,
        "correct": words.correct,
        "substitutions": words.substitutions,
        "deletions": words.deletions,
        "insertions": words.insertions,
        "utterances": words.sentences,
    }


def _decoded_part(folder: Path, data: Path, sampling_rate: int) -> dict[str, Any]:
    """Score one decoded part and write its alignments beside it."""
    scores = score_texts(data / "text", folder / "text")
    for rate, result in scores.items():
        write_score(folder / f"score_{rate}", result)
    factor, seconds = real_time_factor(folder.glob("logdir/asr_inference.*.log"), sampling_rate)
    return {
        **error_rates(scores["wer"].total, scores["cer"].total),
        "audio_seconds": round(seconds, 1),
        # NaN is no JSON: None where the logs are gone.
        "rtf": round(factor, 3) if factor == factor else None,
    }


def write_json(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the entries as a list of objects; an interrupted run leaves no half file."""
    text_files.write_text(path, json.dumps(rows, indent=1) + "\n")


COLUMNS = {
    "system": "System",
    "part": "Part",
    "bits": "Bits",
    "inference": "Inference",
    "wer": "WER %",
    "cer": "CER %",
    "words": "Words",
    "substitutions": "Sub",
    "deletions": "Del",
    "insertions": "Ins",
    "size": "Size MB",
    "rtf": "RTF",
}


def to_markdown(rows: Sequence[dict[str, Any]], columns: Mapping[str, str] = COLUMNS) -> str:
    """Return the entries as a Markdown table that is aligned to be read as plain text too.

    Args:
        rows: the entries.
        columns: keys of an entry with their titles; ``size`` is ``size_bytes`` in megabytes.
    """
    table = [list(columns.values())]
    for row in rows:
        cells = dict(row)
        if "size" in columns:
            cells["size"] = f"{row['size_bytes'] / 1e6:.2f}"
        table.append(["-" if (cell := cells[c]) is None else str(cell) for c in columns])
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=False)) + " |"
        for line in table
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)
