"""Packed models, as ``espnet2.bin.pack`` and ``hybrid-pack`` write them: files and a ``meta.yaml``."""

from __future__ import annotations

import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_META = "meta.yaml"


def packed_files(path: str | Path) -> dict[str, str] | None:
    """Return the files in a packed model by their roles, such as ``asr_train_config``.

    Args:
        path: any file.

    Returns:
        Names in the archive; None for a file that is no packed model.
    """
    path = Path(path)
    try:
        meta = _read_meta(path)
    except (OSError, zipfile.BadZipFile, tarfile.TarError, EOFError):
        return None
    if not isinstance(meta, dict):
        return None
    found: dict[str, str] = {}
    for kind in ("yaml_files", "files"):
        found.update({str(k): str(v) for k, v in (meta.get(kind) or {}).items()})
    return found


def describe_packed(path: str | Path) -> str | None:
    """Return what to do with a packed model where one of its files is wanted; None for others."""
    files = packed_files(path)
    if files is None:
        return None
    unpack = "unzip" if zipfile.is_zipfile(path) else "tar -xf"
    named = ", ".join(f"--{role} {name}" for role, name in files.items())
    return f"is a packed model. Unpack it ({unpack} {path}), then give its files: {named}."


@contextmanager
def unpacked(path: str | Path) -> Iterator[dict[str, str]]:
    """Unpack a packed model to a folder that is gone afterwards; gives its files by their roles."""
    from espnet2.main_funcs.pack_funcs import unpack

    with tempfile.TemporaryDirectory(prefix="espnet_quant4_") as folder:
        yield unpack(path, folder)


def _read_meta(path: Path) -> Any:
    import yaml

    if not path.is_file():
        return None
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if _META not in archive.namelist():
                return None
            return yaml.safe_load(archive.read(_META))
    if tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            # The first that pack writes; looking for it elsewhere would read all of a large file.
            first = archive.next()
            if first is None or Path(first.name).name != _META:
                return None
            member = archive.extractfile(first)
            return None if member is None else yaml.safe_load(member.read())
    return None
