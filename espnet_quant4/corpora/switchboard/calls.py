"""The files of calls: found on the disks by name, checked, and handed to lhotse.

lhotse's recipes stop at the first call that lacks something. What they get is therefore a folder
of links to sound calls, laid out as they expect it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from espnet_quant4.corpora.switchboard.findings import (
    CorpusError,
    Findings,
    list_content,
    require_folder,
)
from espnet_quant4.corpora.switchboard.sphere import (
    SAMPLING_RATE,
    SphereHeader,
    read_header,
    require_readable,
)

ONE_CHANNEL = "calls left out: their audio does not have two channels"
TRUNCATED = "calls left out: their audio is shorter than its header says"
NO_AUDIO = "calls left out: transcripts without audio"
NO_TRANSCRIPT = "calls left out: audio without transcripts"
TWICE = "files not used: the same call is there a second time"


@dataclass(frozen=True)
class Call:
    """A call's audio, two channels.

    Attributes:
        name: the file's name without suffix, in lower case.
        path: absolute.
        seconds: duration.
    """

    name: str
    path: Path
    seconds: float


def find_files(
    folders: Iterable[Path], pattern: str, what: str, layout: str, findings: Findings
) -> dict[str, Path]:
    """Find files by their names, however the disks were copied.

    Args:
        folders: searched with all folders below them, links followed.
        pattern: of the whole name, in any case; its first group is the key.
        what: is looked for, and `layout`, where it is expected: for messages.
        findings: where files of the same key are counted as `TWICE`.

    Returns:
        key in lower case -> absolute path, sorted by key.

    Raises:
        CorpusError: if a folder is missing, or there is no such file in any.
    """
    folders = list(folders)
    found: dict[str, Path] = {}
    name = re.compile(pattern, re.IGNORECASE)
    for folder in folders:
        require_folder(folder, what, layout)
        for path in sorted(_walk(folder)):
            if match := name.fullmatch(path.name):
                key = match[1].lower()
                if key in found:
                    findings.add(TWICE, str(path), f"used is {found[key]}")
                else:
                    found[key] = path.absolute()
    if not found:
        seen = "; ".join(f"{folder} holds {list_content(folder)}" for folder in folders)
        raise CorpusError(f"{what}: no file is named {pattern}. {layout} {seen}.")
    return dict(sorted(found.items()))


def _walk(folder: Path) -> Iterable[Path]:
    # Path.rglob does not follow links to folders, which is how disks are often put together.
    import os

    for root, _, names in os.walk(folder, followlinks=True):
        yield from (Path(root, name) for name in names)


def check_calls(audio: Mapping[str, Path], findings: Findings) -> tuple[list[Call], bool]:
    """Return the calls whose audio can be used, and whether some need sph2pipe.

    Raises:
        CorpusError: for a broken header, another sampling rate, or compressed files without
            sph2pipe.
    """
    headers: dict[str, SphereHeader] = {key: read_header(path) for key, path in audio.items()}
    calls, used = [], []
    for key, header in headers.items():
        path = audio[key]
        if header.sampling_rate != SAMPLING_RATE:
            raise CorpusError(
                f"{path}: {header.sampling_rate} Hz; telephone speech of this corpus has "
                f"{SAMPLING_RATE} Hz. Use the LDC's own files."
            )
        if header.channels != 2:
            findings.add(ONE_CHANNEL, path.name, f"{header.channels}")
        elif header.missing_bytes or not header.samples:
            findings.add(TRUNCATED, path.name, f"{header.missing_bytes} bytes missing")
        else:
            calls.append(Call(path.stem.lower(), path, header.seconds))
            used.append((path, header))
    return calls, require_readable(used)


def require_most(
    missing: Iterable[str], total: int, allow_incomplete: bool, hint: str, findings: Findings
) -> None:
    """Refuse a corpus of which over a twentieth is missing, unless that is allowed.

    Raises:
        CorpusError: names what is missing, and how to go on without it.
    """
    missing = sorted(missing)
    if len(missing) > 0.05 * total and not allow_incomplete:
        few = ", ".join(missing[:5])
        raise CorpusError(
            f"{findings.corpus}: {len(missing)} of {total} calls cannot be used, such as {few}. "
            f"{hint} To go on with the rest: --allow_incomplete true. Found: "
            + "; ".join(findings.lines())
        )


def link(path: Path, target: Path) -> None:
    """Make a link at `path`, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
