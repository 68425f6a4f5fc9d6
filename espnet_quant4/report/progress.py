"""Follow the log of a training by ESPnet and print a line for each epoch.

``python -m espnet_quant4.report.progress LOG`` runs until it is ended, beside the training.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_STARTED = re.compile(r"INFO: (\d+)/(\d+)epoch started(?:\. Estimated time to finish: (.*))?")
_RESULTS = re.compile(r"INFO: (\d+)epoch results: \[train\](.*)\[valid\](.*)")
_LOSS = re.compile(r"\bloss=([0-9.einf+-]+)")
_TIME = re.compile(r"\btime=([^,]*seconds)")


def describe(line: str) -> str | None:
    """Return what to print for a line of the log, or None."""
    if match := _STARTED.search(line):
        epoch, last, remaining = match.groups()
        return f"  epoch {epoch}/{last}" + (f", about {remaining} to go" if remaining else "")
    if match := _RESULTS.search(line):
        epoch, train, valid = match.groups()
        losses = [
            found.group(1) if (found := _LOSS.search(part)) else "?" for part in (train, valid)
        ]
        took = found.group(1) if (found := _TIME.search(train)) else "?"
        return f"  epoch {epoch}: loss {losses[0]} train, {losses[1]} valid ({took})"
    return None


def follow(path: Path, interval: float = 0.5) -> Iterator[str]:
    """Yield the lines that are added to a file, for ever; it need not exist yet."""
    while not path.exists():
        time.sleep(interval)
    with path.open(encoding="utf-8", errors="replace") as log:
        pending = ""
        while True:
            piece = log.readline()
            if not piece:
                time.sleep(interval)
                continue
            pending += piece
            if pending.endswith("\n"):
                yield pending
                pending = ""


def main() -> None:
    """Print what happens in the log named on the command line."""
    for line in follow(Path(sys.argv[1])):
        described = describe(line)
        if described:
            print(described, flush=True)


if __name__ == "__main__":
    main()
