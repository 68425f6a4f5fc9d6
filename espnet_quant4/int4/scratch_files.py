"""Files that ESPnet insists on reading while it builds a model, and that leave nothing behind.

Where the system has files in memory (Linux), a process that is killed takes them with it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import TracebackType


class ScratchFiles:
    """Files that are there until the ``with`` block ends.

    Their paths mean something to this process only.
    """

    def __enter__(self) -> ScratchFiles:
        self._descriptors: list[int] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        if self._folder is not None:
            self._folder.cleanup()

    def write(self, name: str, content: bytes) -> Path:
        """Write a file and return its path.

        Args:
            name: of the file, which need not be part of the path.
            content: of the file.
        """
        path = self._in_memory(name)
        if path is None:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="espnet_quant4_")
            path = Path(self._folder.name, name)
        path.write_bytes(content)
        return path

    def _in_memory(self, name: str) -> Path | None:
        if not hasattr(os, "memfd_create"):
            return None
        try:
            descriptor = os.memfd_create(name)
        except OSError:
            return None
        self._descriptors.append(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}")
        return path if path.exists() else None
