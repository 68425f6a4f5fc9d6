"""Scores on disk: a Kaldi archive with its index, that an interrupted run goes on with."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

import kaldiio
import numpy as np

from espnet_quant4.text_files import read_json, write_text


class ScoreArchive:
    """Writes ``scores.ark``, ``scores.scp`` and the seconds that each utterance took.

    A line of the index is written when all else of its utterance is. What a run that was cut off left
    behind it is removed when the next one starts. Scores that were made with other settings are
    removed too, and so are all where some are of utterances that are not asked for.

    Args:
        folder: where the files lie.
        settings: what the scores depend on; written to ``settings.json``.
        utterances: names of those that are to be scored.
    """

    def __init__(self, folder: str | Path, settings: dict[str, Any], utterances: Collection[str]):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.ark = folder / "scores.ark"
        self.index = folder / "scores.scp"
        self.times = folder / "utt2seconds"
        self.totals = folder / "seconds"
        self._start(folder / "settings.json", json.dumps(settings, indent=1, sort_keys=True))
        lines = _whole_lines(self.index)
        self.done = {line.partition(" ")[0] for line in lines}
        if not self.done.issubset(utterances):
            logging.warning(f"{self.index}: holds other utterances too; starting again")
            self._remove()
            lines, self.done = [], set()
        if lines:
            _truncate(self.ark, _end_of_matrix(lines[-1]))
        elif self.ark.exists():
            self.ark.unlink()
        self._seconds = {
            fields[0]: (float(fields[1]), float(fields[2]))
            for fields in map(str.split, _whole_lines(self.times))
            if len(fields) == 3
        }

    def _start(self, path: Path, settings: str) -> None:
        before = read_json(path) if path.exists() else {}
        now = json.loads(settings)
        if before == now:
            return
        if self.index.exists():
            changed = sorted(n for n in {*before, *now} if before.get(n) != now.get(n))
            logging.warning(
                f"{self.index}: made with another model, prior, option or data ({', '.join(changed)} "
                "changed); starting again"
            )
        self._remove()
        write_text(path, settings)

    def _remove(self) -> None:
        # The index first: without it, nothing of the rest counts.
        for old in (self.index, self.ark, self.times, self.totals):
            old.unlink(missing_ok=True)

    def write(self, utterance: str, scores: np.ndarray, spent: float, audio: float) -> None:
        """Add an utterance.

        Args:
            utterance: its name.
            scores: ``(frames, num_pdfs)`` float32.
            spent: seconds that scoring took.
            audio: seconds that it is long.
        """
        start = self.ark.stat().st_size if self.ark.exists() else 0
        kaldiio.save_ark(str(self.ark), {utterance: scores}, append=True)
        with self.times.open("a", encoding="utf-8") as times:
            times.write(f"{utterance} {spent:.6f} {audio:.6f}\n")
        self._seconds[utterance] = (spent, audio)
        offset = start + len(utterance.encode()) + 1
        with self.index.open("a", encoding="utf-8") as index:
            index.write(f"{utterance} {self.ark}:{offset}\n")
        self.done.add(utterance)

    def finish(self) -> tuple[float, float]:
        """Write ``seconds``: what was spent, and what was scored, over all utterances of the index.

        Returns:
            The two.
        """
        known = [self._seconds[utterance] for utterance in self.done if utterance in self._seconds]
        spent = sum(seconds for seconds, _ in known)
        audio = sum(seconds for _, seconds in known)
        partial = self.totals.with_name(f"{self.totals.name}.part")
        partial.write_text(f"{spent:.6f} {audio:.6f}\n", encoding="utf-8")
        partial.replace(self.totals)
        return spent, audio


def _whole_lines(path: Path) -> list[str]:
    """Return the lines of a file without a last one that was cut off, which is removed."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    _truncate(path, whole)
    return content[:whole].decode("utf-8").splitlines()


def _truncate(path: Path, size: int) -> None:
    if path.stat().st_size > size:
        with path.open("rb+") as opened:
            opened.truncate(size)


def _end_of_matrix(line: str) -> int:
    """Return where in the archive the matrix of an index line ends."""
    name, _, offset = line.partition(" ")[2].rpartition(":")
    with Path(name).open("rb") as ark:
        ark.seek(int(offset))
        kaldiio.matio.read_kaldi(ark)
        return ark.tell()
