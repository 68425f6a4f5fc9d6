"""The ``.int4`` file: safetensors layout, with a checksum over every byte of it.

Tensors as `espnet_quant4.int4.convert` leaves them, and string metadata. ``checksum`` is the SHA-256 of
the file with the checksum's own 64 digits set to zero, so that a change of any byte, header included,
is found. See docs/int4.md.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

FORMAT = "espnet_quant4"
FORMAT_VERSION = 1

_ZEROS = "0" * 64
_CHECKSUM = re.compile(rb'"checksum":"([0-9a-f]{64})"')


class Int4FileError(ValueError):
    """A file that is not a whole, unchanged ``.int4`` file of a version that this package reads."""


def write(
    path: str | Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> int:
    """Write a file; one that is there is replaced at once, or not at all.

    Args:
        path: where to.
        tensors: on the CPU.
        metadata: of the user; ``format``, ``format_version`` and ``checksum`` are added.

    Returns:
        The size of the file in bytes.
    """
    path = Path(path)
    own = {"format": FORMAT, "format_version": str(FORMAT_VERSION), "checksum": _ZEROS}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = bytearray(to_bytes(plain, {**metadata, **own}))
    start = _checksum_position(content[: _header_end(content)], path)
    content[start : start + 64] = hashlib.sha256(content).hexdigest().encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part{os.getpid()}")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return len(content)


def read(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a file's tensors, which stay mapped from it until they are written to, and its metadata.

    Raises:
        Int4FileError: for a file that is missing, truncated, changed, of another format or newer.
    """
    path = Path(path)
    metadata = _verify(path)
    try:
        with safe_open(str(path), framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise Int4FileError(f"{path}: cannot be read: {error}") from error


def _verify(path: Path) -> dict[str, str]:
    """Check a file and return its metadata."""
    if not path.is_file():
        raise Int4FileError(
            f"{path}: no such file. Make one: espnet-quant4 convert --asr_train_config ... "
            f"--asr_model_file ... --output {path}"
        )
    how = "Copy it again, or convert the model again."
    if path.stat().st_size < 8:
        raise Int4FileError(f"{path}: {path.stat().st_size} bytes, which is no .int4 file. {how}")
    with (
        path.open("rb") as opened,
        mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        end = _header_end(content)
        if end > len(content):
            raise Int4FileError(
                f"{path}: truncated, or no .int4 file: its header should end at byte {end}, and it has "
                f"{len(content)}. {how}"
            )
        header = content[:end]
        start = _checksum_position(header, path)
        digest = hashlib.sha256(header[:start] + _ZEROS.encode() + header[start + 64 :])
        with memoryview(content) as view, view[end:] as data:
            digest.update(data)
        if digest.hexdigest().encode() != header[start : start + 64]:
            raise Int4FileError(f"{path}: truncated or changed since it was written. {how}")
    try:
        with safe_open(str(path), framework="pt") as opened:
            metadata: dict[str, str] = opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise Int4FileError(f"{path}: not in safetensors layout: {error}. {how}") from error
    version = metadata.get("format_version", "")
    if metadata.get("format") != FORMAT or not version.isdigit():
        raise Int4FileError(f"{path}: its format is {metadata.get('format')!r}, not {FORMAT!r}.")
    if int(version) > FORMAT_VERSION:
        raise Int4FileError(
            f"{path}: written in format {version}; this espnet_quant4 reads up to {FORMAT_VERSION}. "
            "Install a newer espnet_quant4, from where this one came."
        )
    return metadata


def _header_end(content: bytes | bytearray | mmap.mmap) -> int:
    return 8 + int(struct.unpack("<Q", content[:8])[0])


def _checksum_position(header: bytes | bytearray, path: Path) -> int:
    found = list(_CHECKSUM.finditer(header))
    if len(found) != 1:
        raise Int4FileError(
            f"{path}: no .int4 file: its header has {len(found)} checksums instead of one. Files of "
            "safetensors layout that espnet-quant4 did not write cannot be read."
        )
    return found[0].start(1)
