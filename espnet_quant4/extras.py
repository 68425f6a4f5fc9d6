"""How to install what only a part of the package needs: setup.cfg's extras."""

from __future__ import annotations

import re
from importlib import metadata

_EXTRA = re.compile(r"""extra\s*==\s*["']([^"']+)["']""")


def install_command(extra: str) -> str:
    """Return the command that installs what an extra of setup.cfg names.

    It names the packages themselves: no package index has espnet_quant4, and the folder or archive
    that it was installed from may be gone.

    Args:
        extra: such as ``hybrid``.
    """
    try:
        listed = metadata.requires("espnet_quant4") or []
    except metadata.PackageNotFoundError:
        listed = []
    found = []
    for requirement in listed:
        package, _, marker = requirement.partition(";")
        match = _EXTRA.search(marker)
        if match and match[1] == extra:
            found.append(f'"{package.strip()}"')
    if not found:
        # Run from a checkout that was never installed, or was before it had this extra.
        return f'pip install ".[{extra}]" (in a checkout of espnet_quant4)'
    return f"pip install {' '.join(found)}"
