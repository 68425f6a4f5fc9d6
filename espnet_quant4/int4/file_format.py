"""The ``.int4`` file: safetensors layout, with a checksum over every byte of it.

Tensors as `espnet_quant4.int4.convert` leaves them, and string metadata. ``checksum`` is the SHA-256 of
the file with the checksum's own 64 digits set to zero, so that a change of any byte, header included,
is found. See docs/int4.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes

FORMAT = "espnet_quant4"
FORMAT_VERSION = 1

_ZEROS = "0" * 64
_CHECKSUM = re.compile(rb'"checksum":"([0-9a-f]{64})"')
_HOW = "Copy it again, or convert the model again."


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
    """Read a file's tensors and its metadata.

    Both are copies: what happens to the file afterwards does not reach them.

    Raises:
        Int4FileError: for a file that is missing, truncated, changed, of another format or newer.
    """
    path = Path(path)
    # Once, and checked in memory: a file can change between two looks at it.
    content = _content(path)
    metadata = _verify(path, content)
    try:
        return from_bytes(content), metadata
    except Exception as error:
        # safetensors raises KeyError, AssertionError and its own, by what is wrong.
        raise Int4FileError(
            f"{path}: its tensors are not in safetensors layout: {_sentence(error)}. {_HOW}"
        ) from error


def _content(path: Path) -> bytes:
    if not path.exists():
        raise Int4FileError(
            f"{path}: no such file. Make one: espnet-quant4 convert --asr_train_config ... "
            f"--asr_model_file ... --output {path}"
        )
    if not path.is_file():
        raise Int4FileError(
            f"{path}: a folder or a device, and no file. Name the .int4 file itself."
        )
    try:
        content = path.read_bytes()
    except (OSError, MemoryError) as error:
        raise Int4FileError(f"{path}: cannot be read: {_sentence(error)}.") from error
    if len(content) < 8:
        raise Int4FileError(f"{path}: {len(content)} bytes, which is no .int4 file. {_HOW}")
    return content


def _verify(path: Path, content: bytes) -> dict[str, str]:
    """Check a file's content and return its metadata."""
    end = _header_end(content)
    if end > len(content):
        raise Int4FileError(
            f"{path}: truncated, or no .int4 file: its header should end at byte {end}, and it has "
            f"{len(content)}. {_HOW}"
        )
    header = content[:end]
    start = _checksum_position(header, path)
    digest = hashlib.sha256(header[:start] + _ZEROS.encode() + header[start + 64 :])
    with memoryview(content) as view, view[end:] as data:
        digest.update(data)
    if digest.hexdigest().encode() != header[start : start + 64]:
        raise Int4FileError(f"{path}: truncated or changed since it was written. {_HOW}")
    metadata = _metadata(path, header[8:])
    if metadata.get("format") != FORMAT:
        raise Int4FileError(
            f"{path}: its format is {metadata.get('format')!r}, and {FORMAT!r} is what this program "
            "reads. Make an INT4 file: espnet-quant4 convert."
        )
    _check_version(path, metadata.get("format_version"))
    return metadata


def _metadata(path: Path, header: bytes) -> dict[str, str]:
    try:
        found = json.loads(header)["__metadata__"]
        return {name: value for name, value in found.items() if isinstance(value, str)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Int4FileError(
            f"{path}: its header is no JSON object with metadata: {_sentence(error)}. {_HOW}"
        ) from error


def _check_version(path: Path, version: str | None) -> None:
    if version is None or not re.fullmatch("[1-9][0-9]{0,8}", version):
        raise Int4FileError(
            f"{path}: its format_version is {version!r}; this espnet_quant4 reads numbers from 1 to "
            f"{FORMAT_VERSION}. Convert the model again."
        )
    if int(version) > FORMAT_VERSION:
        raise Int4FileError(
            f"{path}: written in format {version}; this espnet_quant4 reads up to {FORMAT_VERSION}. "
            "Install a newer espnet_quant4, from where the file came, or convert the model again with "
            "this one."
        )


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(".: ")


def _header_end(content: bytes | bytearray) -> int:
    return 8 + int(struct.unpack("<Q", content[:8])[0])


def _checksum_position(header: bytes | bytearray, path: Path) -> int:
    found = list(_CHECKSUM.finditer(header))
    if len(found) != 1:
        raise Int4FileError(
            f"{path}: no .int4 file: its header has {len(found)} checksums instead of one. Files of "
            "safetensors layout that espnet-quant4 did not write cannot be read."
        )
    return found[0].start(1)
