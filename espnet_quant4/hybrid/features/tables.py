"""Tables of a data folder: a key and a value a line."""

from __future__ import annotations

import os
from pathlib import Path


def read_table(path: Path) -> dict[str, str]:
    """Return keys and values, environment variables in the values replaced; empty ones left out."""
    rows = (line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines())
    return {row[0]: os.path.expandvars(row[1].strip()) for row in rows if len(row) == 2}
