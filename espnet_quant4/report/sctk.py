"""NIST's scoring programs: on PATH, or where Debian's package ``sctk`` puts them."""

from __future__ import annotations

import shutil

#: Debian keeps them off PATH.
DEBIAN = "/usr/lib/sctk/bin"


def find_program(name: str) -> str | None:
    """Return a program's path, such as ``sclite``'s; None where it is not installed."""
    return shutil.which(name) or shutil.which(f"{DEBIAN}/{name}")
