"""NIST SPHERE files: header, and the channels of a call.

libsndfile reads SPHERE except where the samples are compressed (``sample_coding`` names
``embedded-shorten``); for those there is the program ``sph2pipe``.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from espnet_quant4.corpora.switchboard.findings import CorpusError

SAMPLING_RATE = 8000
SPH2PIPE_SOURCE = "https://github.com/burrmill/sph2pipe (or `lhotse install-sph2pipe`)"


@dataclass(frozen=True)
class SphereHeader:
    """What the header of a SPHERE file says.

    Attributes:
        channels: their number.
        sampling_rate: in Hz.
        samples: per channel.
        coding: such as ``ulaw`` or ``ulaw,embedded-shorten-v2.00``.
        missing_bytes: of uncompressed samples, by which the file is shorter than its header says.
    """

    channels: int
    sampling_rate: int
    samples: int
    coding: str
    missing_bytes: int

    @property
    def seconds(self) -> float:
        """Return the duration."""
        return self.samples / self.sampling_rate

    @property
    def compressed(self) -> bool:
        """Return whether only sph2pipe can read the samples."""
        return "embedded" in self.coding


def read_header(path: Path) -> SphereHeader:
    """Read the header of a SPHERE file.

    Raises:
        CorpusError: if the file is no SPHERE file, or its header lacks what is needed.
    """
    with open(path, "rb") as file:
        head = file.read(16).decode("ascii", "replace").split("\n")
        if head[0] != "NIST_1A" or len(head) < 2 or not head[1].strip().isdigit():
            raise CorpusError(
                f"{path}: not a NIST SPHERE file (it does not begin with NIST_1A and the header's "
                "size). Copy it from the LDC's medium again."
            )
        size = int(head[1])
        file.seek(0)
        text = file.read(size).decode("ascii", "replace")
        content = file.seek(0, io.SEEK_END) - size
    fields = {}
    for line in text.partition("end_head")[0].splitlines()[2:]:
        name, *value = line.split(maxsplit=2)
        if len(value) == 2:
            fields[name] = value[1].strip()
    try:
        channels = int(fields["channel_count"])
        rate = int(fields["sample_rate"])
        samples = int(fields["sample_count"])
        width = int(fields.get("sample_n_bytes", 1))
    except (KeyError, ValueError) as error:
        raise CorpusError(
            f"{path}: header without a number for {error}; needed are channel_count, sample_rate "
            "and sample_count. Copy the file from the LDC's medium again."
        ) from None
    coding = fields.get("sample_coding", "pcm")
    missing = 0 if "embedded" in coding else max(0, samples * channels * width - content)
    return SphereHeader(channels, rate, samples, coding, missing)


def require_readable(headers: Iterable[tuple[Path, SphereHeader]]) -> bool:
    """Return whether some files are compressed, having made sure that they can be read.

    Raises:
        CorpusError: for compressed files where sph2pipe is not installed.
    """
    compressed = [path for path, header in headers if header.compressed]
    if compressed and shutil.which("sph2pipe") is None:
        raise CorpusError(
            f"{len(compressed)} SPHERE file(s) are compressed (sample_coding with embedded-shorten), "
            f"such as {compressed[0]}. libsndfile cannot read these; they need the program sph2pipe "
            f"on PATH: {SPH2PIPE_SOURCE}."
        )
    return bool(compressed)


def read_channels(path: Path) -> np.ndarray:
    """Read all samples, int16 [samples, channels], by libsndfile or, if compressed, sph2pipe.

    Raises:
        CorpusError: if they cannot be read.
    """
    try:
        if read_header(path).compressed:
            require_readable([(path, read_header(path))])
            command = ["sph2pipe", "-f", "wav", "-p", str(path)]
            done = subprocess.run(command, capture_output=True, check=True)
            source: Path | io.BytesIO = io.BytesIO(done.stdout)
        else:
            source = path
        samples, _ = soundfile.read(source, dtype="int16", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        raise CorpusError(f"{path}: samples cannot be read: {error}") from error
    except subprocess.CalledProcessError as error:
        message = error.stderr.decode("utf-8", "replace").strip()
        raise CorpusError(f"{path}: sph2pipe failed: {message}") from error
    return np.asarray(samples)


@contextmanager
def lhotse_reads_sphere(compressed: bool) -> Iterator[None]:
    """Let lhotse open SPHERE files by libsndfile; by sph2pipe only if some are compressed.

    Left alone it runs sph2pipe for each ``.sph``, decoding all of it to learn the duration, and
    fails where the program is missing, though libsndfile could read the file.
    """
    from lhotse.audio.backend import get_current_audio_backend, set_current_audio_backend

    previous = get_current_audio_backend()
    set_current_audio_backend("default" if compressed else "LibsndfileBackend")
    try:
        yield
    finally:
        set_current_audio_backend(previous)
