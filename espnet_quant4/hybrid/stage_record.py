"""What the output of a stage was made of, so that nothing is reused that was made of something else.

A stage writes ``made_from.json`` beside its output: checksums of what it read, its options, and the
version of what the code makes of them. With the same record the output stays as it is; with another
one it is made anew, and the stage says why; without a record it is somebody else's, and is refused.

Texts, models and graphs count by their content, so that what is copied or written again unchanged
stays current. Recordings and archives that a ``wav.scp`` or ``feats.scp`` names are too large for
that: they count by size and time of last change.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from espnet_quant4.text_files import read_json, read_pairs, write_text

RECORD = "made_from.json"
# Where in an archive a matrix stands, as in Kaldi's script files.
_OFFSET = re.compile(r":\d+(\[[\d:,]*\])?$")
_BLOCK = 1 << 20


class StageError(ValueError):
    """A stage's output may not be written over, or its input is half finished; says what to do."""


@dataclass(frozen=True)
class Input:
    """Something that a stage reads.

    Attributes:
        path: its name, for messages.
        checksum: of its content; "" where it is missing.
    """

    path: str
    checksum: str


def file_input(path: Path, optional: bool = False) -> Input:
    """Return a file's SHA-256.

    Raises:
        OSError: where it cannot be read, or is missing and not optional.
    """
    if optional and not path.exists():
        return Input(str(path), "")
    digest = hashlib.sha256()
    with open(path, "rb") as opened:
        while block := opened.read(_BLOCK):
            digest.update(block)
    return Input(str(path), digest.hexdigest())


def folder_inputs(
    role: str, folder: Path, names: Iterable[str], optional: Iterable[str] = ()
) -> dict[str, Input]:
    """Return the files of a folder that another stage may have written, as ``ROLE/NAME``.

    Raises:
        StageError: where that stage was interrupted.
        OSError: where a file that is not optional cannot be read.
    """
    check_complete(folder)
    found = {f"{role}/{name}": file_input(folder / name) for name in names}
    found.update({f"{role}/{name}": file_input(folder / name, True) for name in optional})
    return found


def check_complete(folder: Path) -> None:
    """Check that a folder is finished, or was not written by a stage.

    Raises:
        StageError: where a stage was interrupted while it wrote the folder.
    """
    record = _read_record(folder / RECORD)
    if record is not None and not record["complete"]:
        raise StageError(
            f"{folder}: {record['stage']} was interrupted while it wrote this folder. Run it "
            "again first."
        )


def listed_inputs(role: str, scp: Path) -> dict[str, Input]:
    """Return a ``wav.scp`` or ``feats.scp`` and what it names, the latter by sizes and times."""
    check_complete(scp.parent)
    digest = hashlib.sha256()
    for path in dict.fromkeys(_OFFSET.sub("", value) for _, _, value in read_pairs(scp)):
        try:
            found = Path(path).stat()
            digest.update(f"{found.st_size} {found.st_mtime_ns}\n".encode())
        except OSError:
            # A command, or missing: reading it will tell.
            digest.update(b"-\n")
    named = Input(f"a file that {scp} names", digest.hexdigest())
    return {role: file_input(scp), f"{role}, files": named}


@dataclass(frozen=True)
class Stage:
    """A stage with all that its output depends on.

    Attributes:
        name: of the command and its step.
        output: the folder or file that it writes.
        makes: names of files in the folder that only this stage's output has; () for a file.
        inputs: what it reads, by its role.
        options: its other options, by their names on the command line.
        keeps: those of ``makes`` that are not removed before they are made anew, for what is written
            only where it changes.
        version: raised when the code makes something else of the same inputs and options.
    """

    name: str
    output: Path
    makes: Sequence[str]
    inputs: Mapping[str, Input]
    options: Mapping[str, Any] = field(default_factory=dict)
    keeps: Sequence[str] = ()
    version: int = 1

    @property
    def record(self) -> Path:
        """Where the record lies: in the folder, or beside the file."""
        if self.makes:
            return self.output / RECORD
        return self.output.with_name(f"{self.output.name}.{RECORD}")

    def begin(self, say: Callable[[str], object]) -> bool:
        """Return whether the output has to be made; what there was of it is removed then.

        Args:
            say: told that the output stays, or why it is made anew.

        Raises:
            StageError: where there is an output without a record, or that of another stage.
        """
        known = _read_record(self.record)
        if known is None:
            self._refuse_what_is_not_ours()
        elif known["stage"] != self.name:
            raise StageError(
                f"{self.output}: holds what {known['stage']} made; {self.name} would write over it. "
                "Give another --output."
            )
        else:
            reasons = self._reasons(known)
            if not reasons:
                say(f"{self.output}: there already, made of the same files and options")
                return False
            say(f"{self.output}: made anew, since {'; '.join(reasons)}")
        for made in self._made():
            if made.name not in self.keeps:
                made.unlink(missing_ok=True)
        self._write(complete=False)
        return True

    def finish(self) -> None:
        """Say that the output is complete; the last thing that a stage does."""
        self._write(complete=True)

    def resume(self, started: Path) -> None:
        """Let a training go on, or begin, unless what was trained so far is of other inputs.

        A training takes too long to be thrown away unasked. One without a record, of an earlier
        version of this package, goes on.

        Args:
            started: a file that is there once something was trained, such as a checkpoint.

        Raises:
            StageError: where it is, and the record is of other inputs; nothing is changed then.
        """
        known = _read_record(self.record)
        if known is None and started.exists():
            return
        if known is not None and started.exists() and (changes := self.changes(known)):
            raise StageError(
                f"{self.output}: was trained on something else: {'; '.join(changes)}. Remove "
                f"{self.output} to train it anew, or give another folder."
            )
        self._write(complete=False)

    def is_same_work(self) -> bool:
        """Return whether the record, finished or not, is of these inputs and options."""
        known = _read_record(self.record)
        return known is not None and known["stage"] == self.name and not self.changes(known)

    def changes(self, known: Mapping[str, Any]) -> list[str]:
        """Return in words what is other than in a record."""
        if known["version"] != self.version:
            return ["an earlier version of this package made it"]
        found = []
        for role in [*self.inputs, *(known["inputs"].keys() - self.inputs.keys())]:
            now, then = self.inputs.get(role), known["inputs"].get(role)
            if now is None:
                found.append(f"{then['path']} is no input now")
            elif then is None:
                found.append(f"{now.path} is a new input")
            elif now.checksum != then["checksum"]:
                found.append(f"{now.path} changed")
        options, before = _as_json(self.options), known["options"]
        for name in [*options, *(before.keys() - options.keys())]:
            if options.get(name) != before.get(name):
                found.append(f"--{name} is {options.get(name)}, not {before.get(name)}")
        return found

    def _reasons(self, known: Mapping[str, Any]) -> list[str]:
        found = self.changes(known)
        if not known["complete"]:
            return [*found, "the run before was interrupted"]
        missing = [made.name for made in self._made() if not made.is_file()]
        return found or ([f"{', '.join(missing)} is missing"] if missing else [])

    def _refuse_what_is_not_ours(self) -> None:
        there = [made.name for made in self._made() if made.exists()]
        if there:
            raise StageError(
                f"{self.output}: {', '.join(there)} is there, and no {self.record.name} tells "
                "what it was "
                f"made of; {self.name} does not write over it. Remove or move {self.output}, or give "
                "another --output."
            )

    def _made(self) -> list[Path]:
        return [self.output / name for name in self.makes] or [self.output]

    def _write(self, complete: bool) -> None:
        content = {
            "stage": self.name,
            "version": self.version,
            "complete": complete,
            "inputs": {role: dataclasses.asdict(value) for role, value in self.inputs.items()},
            "options": _as_json(self.options),
        }
        if _read_record(self.record) != content:
            write_text(self.record, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _as_json(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as they are once written and read."""
    return dict(json.loads(json.dumps(options, default=str)))


def _read_record(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    found = read_json(path)
    wanted = {"stage", "version", "complete", "inputs", "options"}
    if not isinstance(found, dict) or not wanted <= found.keys():
        raise StageError(
            f"{path}: no record of a stage. Remove {path.parent}, or give another folder."
        )
    return found
