"""What an experiment's folder holds: configuration, checkpoints, logs, scores."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from espnet_quant4 import checkpoints
from espnet_quant4.checkpoints import CheckpointError
from espnet_quant4.report.espnet_log import EpochResults, epoch_results
from espnet_quant4.report.experiment.error import ReportError
from espnet_quant4.text_files import TextFileError
from espnet_quant4.trained_model import ConfigurationError, build_untrained_model

_EPOCH = re.compile(r"(\d+)epoch\.pth")
_OLDER_LOG = re.compile(r"train(\.?)(\d+)\.log")
# ESPnet3's last line of an alignment.
_COUNTS = re.compile(r"^\w+: [\d.]+ \(((?:\w+=\d+(?:, )?)+)\)$", re.MULTILINE)
# The line of totals of sclite's table and of ours: sentences, words, then six percentages.
_TOTAL = re.compile(r"\|\s*Sum/Avg\s*\|\s*(\d+)\s+(\d+)\s*\|((?:\s*[\d.]+|\s*nan){6})\s*\|")


def load_model(folder: Path, model: str, task: Any) -> tuple[torch.nn.Module, Namespace]:
    """Build an experiment's model in evaluation, with the parameters of a checkpoint.

    Args:
        folder: experiment folder.
        model: file name of the checkpoint.
        task: ESPnet's class of the task that trained it.

    Returns:
        The model and the options that it was trained with.

    Raises:
        ReportError: where configuration or checkpoint are missing or of something else.
    """
    config = folder / "config.yaml"
    if not config.is_file():
        raise ReportError(
            f"{config}: no such file. Give the folder of an experiment, in which ESPnet's training "
            "wrote config.yaml, train.log and checkpoints."
        )
    checkpoint = folder / model
    if not checkpoint.is_file():
        # ESPnet's checkpoint.pth is the state of a training, not a model.
        names = {path.name for path in folder.glob("*.pth")} - {"checkpoint.pth"}
        there = sorted(names)
        raise ReportError(
            f"{checkpoint}: no such checkpoint. "
            + (f"--model takes one of: {', '.join(there)}." if there else "Train the model first.")
        )
    try:
        built, args = build_untrained_model(task, config)
    except (ConfigurationError, TextFileError) as error:
        raise ReportError(f"{error} --task names the task.") from error
    load_checkpoint(built, checkpoint)
    built.eval()
    return built, args


def load_checkpoint(model: torch.nn.Module, path: Path) -> None:
    """Load all parameters of a model; quantizers that the checkpoint lacks stay as they are.

    Raises:
        ReportError: for a file that is no checkpoint, or one of another model.
    """
    try:
        checkpoints.load_checkpoint(model, path, "the model in config.yaml", needs_quantizers=False)
    except CheckpointError as error:
        raise ReportError(f"{error} Name another one with --model.") from error


def epoch_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return epoch and file of the checkpoints ``1epoch.pth``, ... that training has kept.

    Epoch 0 is ``calibrated.pth``, where quantization-aware training starts.
    """
    found = [(_EPOCH.fullmatch(path.name), path) for path in folder.glob("*epoch.pth")]
    start = folder / "calibrated.pth"
    return sorted(
        [(int(match[1]), path) for match, path in found if match]
        + ([(0, start)] if start.is_file() else [])
    )


def training_curve(folder: Path) -> list[EpochResults]:
    """Return the results of all epochs in ``train.log`` and the older logs beside it.

    The job runner renames a log to ``train.1.log`` and that one to ``train.2.log``, so the highest is
    the oldest; ESPnet3 renames to the next free one of ``train1.log``, ``train2.log``, ....
    """
    older = []
    for path in folder.glob("train*.log"):
        if match := _OLDER_LOG.fullmatch(path.name):
            older.append((-int(match[2]) if match[1] else int(match[2]), path))
    logs = [path for _, path in sorted(older)]
    if (folder / "train.log").is_file():
        logs.append(folder / "train.log")
    return epoch_results(_lines(logs))


def _lines(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        with open(path, encoding="utf-8", errors="replace") as lines:
            yield from lines


def error_rates(folder: Path) -> list[dict[str, str]]:
    """Return a row for each decoded part: folder, sentences, words and rates in percent as scored.

    Reads the line of totals of ``score_wer/result.txt`` and ``score_cer/result.txt`` in the folders of
    decodings, as ``sclite`` and `espnet_quant4.report.scoring` write it, and the counts at the end of
    ``wer_alignment`` and ``cer_alignment``, which ESPnet3 writes.
    """
    rows = []
    for result in sorted(folder.rglob("score_wer/result.txt")):
        characters = _totals(result.parent.with_name("score_cer") / "result.txt")
        rows.append((result.parent.parent, _totals(result), characters))
    for result in sorted(folder.rglob("wer_alignment")):
        rows.append((result.parent, _counts(result), _counts(result.with_name("cer_alignment"))))
    return [
        {
            "part": str(part.relative_to(folder)),
            **words,
            "cer": "" if characters is None else characters["error"],
        }
        for part, words, characters in rows
        if words is not None
    ]


def _counts(path: Path) -> dict[str, str] | None:
    """Return what `_totals` does, of an alignment of ESPnet3, which does not count wrong sentences."""
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8", errors="replace")
    found = _COUNTS.findall(text)
    if not found:
        return None
    counts = {k: int(v) for k, v in (pair.split("=") for pair in found[-1].split(", "))}
    errors = {name: counts.get(name, 0) for name in ("substitutions", "deletions", "insertions")}
    words = counts.get("hits", 0) + errors["substitutions"] + errors["deletions"]
    if words == 0:
        return None
    shares = {"correct": counts.get("hits", 0), **errors, "error": sum(errors.values())}
    return {
        "sentences": str(text.count("=== SENTENCE ")),
        "words": str(words),
        **{name: f"{100 * count / words:.1f}" for name, count in shares.items()},
        "sentence_error": "",
    }


def _totals(path: Path) -> dict[str, str] | None:
    if not path.is_file():
        return None
    match = _TOTAL.search(path.read_text(encoding="utf-8", errors="replace"))
    if match is None:
        return None
    percents = match[3].split()
    titles = ("correct", "substitutions", "deletions", "insertions", "error", "sentence_error")
    return {"sentences": match[1], "words": match[2], **dict(zip(titles, percents, strict=True))}
