"""What ESPnet writes to its log files: training progress and decoding times."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

_EPOCH_STARTED = re.compile(r"\b(\d+)/(\d+)epoch started(?:\. Estimated time to finish: (.+))?")
_BATCHES = re.compile(r"\b(\d+)epoch:train:\d+-(\d+)batch:")
_RESULTS = re.compile(r"\b(\d+)epoch results: \[train\] (.+?)(?:, \[valid\] (.+))?$")
# ESPnet3's, a line for each of the two.
_SUMMARY = re.compile(r"\bepoch_summary:(\d+)epoch:(train|valid): (.+)$")
_NO_MORE_EPOCHS = re.compile(r"The training has already reached at max_epoch")
_TIME = re.compile(r"\b(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) ")
_SPEECH_LENGTH = re.compile(r"\bspeech length: (\d+)$")
# Of a recognizer, and of a hybrid's network.
_HYPOTHESIS = re.compile(r"\bbest hypo:|\bscored \S+: \d+ frames")
# A bar of tqdm: title, then done/total.
_BAR = re.compile(r"^(.*?)(?:: +)?\d+%\|.*?\| ([\d.]+\w?/[\d.]+\w?) \[")


class LogWatcher:
    """Follows the log of one training, decoding or other command, line by line.

    Args:
        total: how many utterances a decoding run will go through, 0 if unknown.
    """

    def __init__(self, total: int = 0) -> None:
        self.total = total
        self.decoded = 0
        self.epoch = 0
        self.epochs = 0
        self.batch = 0
        self.left = ""
        self.bar = ""

    def feed(self, line: str) -> str | None:
        """Take the next line; returns what is worth a line to the user, or None."""
        if _HYPOTHESIS.search(line):
            self.decoded += 1
        elif match := _EPOCH_STARTED.search(line):
            self.epoch, self.epochs, self.batch = int(match[1]), int(match[2]), 0
            self.left = match[3] or ""
        elif match := _BATCHES.search(line):
            self.batch = int(match[2])
        elif match := _BAR.search(line):
            self.bar = f"{match[1]} {match[2]}".strip()
        elif match := _RESULTS.search(line.rstrip()):
            losses = [
                f"{part} loss {value}"
                for part, values in (("train", match[2]), ("valid", match[3] or ""))
                if (value := _field(values, "loss"))
            ]
            took = _field(match[2], "time") or "?"
            return f"epoch {match[1]}/{self.epochs}: {', '.join(losses)}; took {took}"
        elif _NO_MORE_EPOCHS.search(line):
            return "all epochs are done already"
        return None

    def status(self) -> str:
        """Where the command is now, in a few words; empty if the log has not said."""
        if self.epoch:
            left = f", about {self.left} left" if self.left else ""
            return f"epoch {self.epoch}/{self.epochs}, batch {self.batch}{left}"
        if self.decoded:
            return f"{self.decoded}{f'/{self.total}' if self.total else ''} utterances"
        return self.bar


def _field(values: str, name: str) -> str | None:
    match = re.search(rf"(?:^|, ){name}=([^,]+(?:, \d[^,=]*(?=,|$))?)", values)
    return match[1] if match else None


@dataclass(frozen=True)
class EpochResults:
    """What ESPnet logs at the end of an epoch; NaN for what it does not.

    Attributes:
        epoch: from 1.
        train_loss: mean over the epoch's batches.
        valid_loss: on the validation data, behind the epoch.
        learning_rate: of the first optimizer's first group, mean over the epoch's batches.
    """

    epoch: int
    train_loss: float
    valid_loss: float
    learning_rate: float


def epoch_results(lines: Iterable[str]) -> list[EpochResults]:
    """Read the logs of a training, older ones first; an epoch trained again counts as it was last.

    ESPnet2's and ESPnet3's logs are told apart by their lines.
    """
    found: dict[int, dict[str, float]] = {}
    for line in lines:
        line = line.rstrip()
        if match := _RESULTS.search(line):
            found[int(match[1])] = {**_of_training(match[2]), **_of_validation(match[3] or "")}
        elif match := _SUMMARY.search(line):
            values = _of_training(match[3]) if match[2] == "train" else _of_validation(match[3])
            found.setdefault(int(match[1]), {}).update(values)
    unknown = dict.fromkeys(("train_loss", "valid_loss", "learning_rate"), float("nan"))
    # ESPnet3 logs the validation first: an epoch without the other line was not finished.
    return [
        EpochResults(epoch, **{**unknown, **found[epoch]})
        for epoch in sorted(found)
        if "train_loss" in found[epoch]
    ]


def _of_training(values: str) -> dict[str, float]:
    rate = _number(values, "optim0_lr0")
    return {"train_loss": _number(values, "loss"), "learning_rate": rate}


def _of_validation(values: str) -> dict[str, float]:
    return {"valid_loss": _number(values, "loss")}


def _number(values: str, name: str) -> float:
    text = _field(values, name)
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def decoding_times(lines: Iterable[str]) -> Iterator[tuple[int, float]]:
    """Read an ``asr_inference`` log.

    Yields:
        For each utterance its length in samples and the seconds from reading it to its best
        hypothesis: features, encoder and search, without loading the model.
    """
    samples, start = 0, None
    for line in lines:
        time = _TIME.search(line)
        if time is None:
            continue
        at = datetime.strptime(time[1], "%Y-%m-%d %H:%M:%S,%f")
        if match := _SPEECH_LENGTH.search(line.rstrip()):
            samples, start = int(match[1]), at
        elif start is not None and _HYPOTHESIS.search(line):
            yield samples, (at - start).total_seconds()
            start = None


def real_time_factor(logs: Iterable[Path], sampling_rate: int) -> tuple[float, float]:
    """Return (seconds of decoding per second of speech, seconds of speech) over log files.

    NaN where the logs hold no utterance.
    """
    samples, seconds = 0, 0.0
    for log in logs:
        with open(log, encoding="utf-8", errors="replace") as lines:
            for length, time in decoding_times(lines):
                samples += length
                seconds += time
    speech = samples / sampling_rate
    return (seconds / speech if speech else float("nan")), speech
