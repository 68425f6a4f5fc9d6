"""Kaldi's basic types in its binary and text forms (``base/io-funcs.h``)."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class KaldiFileError(ValueError):
    """A file is not what it should be; names the file and what was expected."""


class TokenReader:
    """Reads one file from the front; what is behind the part that is wanted stays unread.

    Args:
        data: the whole file.
        where: its name, for messages.
    """

    def __init__(self, data: bytes, where: str) -> None:
        self.where = where
        self.binary = data.startswith(b"\0B")
        self._data = data
        self._position = 2 if self.binary else 0

    @classmethod
    def open(cls, path: str | Path) -> TokenReader:
        """Read a file."""
        return cls(Path(path).read_bytes(), str(path))

    def peek(self) -> str:
        """Return the next token, which stays to be read."""
        position = self._position
        token = self.token()
        self._position = position
        return token

    def token(self) -> str:
        """Return the next word, such as ``<Topology>``."""
        data, start = self._data, self._position
        while start < len(data) and data[start : start + 1].isspace():
            start += 1
        end = start
        while end < len(data) and not data[end : end + 1].isspace():
            end += 1
        if start == end:
            raise KaldiFileError(f"{self.where}: ends where a token was expected")
        # The one space behind a token belongs to it: binary data may follow at once.
        self._position = end + 1
        return data[start:end].decode(errors="replace")

    def expect(self, *tokens: str) -> str:
        """Read a token that must be one of ``tokens``."""
        at, found = self._position, self.token()
        if found not in tokens:
            raise KaldiFileError(
                f"{self.where}: {found[:40]!r} at byte {at} where {' or '.join(tokens)} was expected"
            )
        return found

    def integer(self) -> int:
        """Read an int32."""
        if not self.binary:
            return int(self._number(self.token()))
        return int(self._basic("<i"))

    def real(self) -> float:
        """Read a float or double."""
        if not self.binary:
            return self._number(self.token())
        return float(self._basic("<d" if self._data[self._position] == 8 else "<f"))

    def integers(self) -> list[int]:
        """Read a vector of int32: in text all numbers up to the next token that is none."""
        if self.binary:
            self._size(4)
            (count,) = self._unpack("<i")
            return list(self._unpack(f"<{count}i"))
        numbers = []
        while self.peek().lstrip("-").isdigit():
            numbers.append(int(self.token()))
        return numbers

    def floats(self) -> NDArray[np.float32]:
        """Read a vector of floats or doubles: (elements,) float32."""
        if self.binary:
            code = "d" if self.expect("FV", "DV") == "DV" else "f"
            self._size(4)
            (count,) = self._unpack("<i")
            return np.array(self._unpack(f"<{count}{code}"), dtype=np.float32)
        self.expect("[")
        numbers = []
        while (token := self.token()) != "]":
            numbers.append(self._number(token))
        return np.array(numbers, dtype=np.float32)

    def _number(self, text: str) -> float:
        try:
            return float(text)
        except ValueError:
            raise KaldiFileError(
                f"{self.where}: {text[:40]!r} at byte {self._position} where a number was expected"
            ) from None

    def _basic(self, form: str) -> float:
        self._size(struct.calcsize(form))
        return float(self._unpack(form)[0])

    def _size(self, wanted: int) -> None:
        (size,) = self._unpack("<b")
        if size != wanted:
            raise KaldiFileError(
                f"{self.where}: a number of {size} bytes at byte {self._position - 1} where one of "
                f"{wanted} was expected"
            )

    def _unpack(self, form: str) -> tuple[Any, ...]:
        try:
            values = struct.unpack_from(form, self._data, self._position)
        except struct.error:
            raise KaldiFileError(f"{self.where}: ends too early") from None
        self._position += struct.calcsize(form)
        return values
