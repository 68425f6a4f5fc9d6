"""SPHERE files: plain ones through libsndfile, compressed ones refused or through sph2pipe."""

import os
import sys

import numpy as np
import pytest
from corpora.switchboard_disks import RATE, TONES, tones, write_sphere

from espnet_quant4.corpora.switchboard.findings import CorpusError
from espnet_quant4.corpora.switchboard.sphere import (
    lhotse_reads_sphere,
    read_channels,
    read_header,
    require_readable,
)


def pitch(samples):
    return np.argmax(np.abs(np.fft.rfft(samples))) * RATE / len(samples)


def test_header_and_channels_of_plain_file(tmp_path):
    path = tmp_path / "call.sph"
    write_sphere(path, tones(2))
    header = read_header(path)
    assert (header.channels, header.sampling_rate, header.samples) == (2, RATE, 2 * RATE)
    assert (header.coding, header.missing_bytes, header.seconds) == ("ulaw", 0, 2.0)
    samples = read_channels(path)
    assert samples.shape == (2 * RATE, 2)
    assert [pitch(side) for side in samples.T] == list(TONES)
    # Eight bits of mu-law: steps of 1/16 of the octave that a sample is in.
    assert np.abs(samples.astype(int) - tones(2)).max() <= 8192 / 32


def test_truncated_file_is_seen_by_its_header(tmp_path):
    path = tmp_path / "call.sph"
    write_sphere(path, tones(1), drop_bytes=1000)
    assert read_header(path).missing_bytes == 1000


@pytest.mark.parametrize("content", [b"", b"RIFF....WAVE", b"NIST_1A\n   1024\nend_head\n"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "call.sph"
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=r"call\.sph: .*Copy (it|the file) from the LDC"):
        read_header(path)


@pytest.fixture
def compressed(tmp_path):
    path = tmp_path / "call.sph"
    write_sphere(path, tones(1), coding="ulaw,embedded-shorten-v2.00", drop_bytes=9000)
    return path


def test_compressed_file_needs_sph2pipe(compressed, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CorpusError, match=r"call\.sph.*sph2pipe.*https://"):
        require_readable([(compressed, read_header(compressed))])
    with pytest.raises(CorpusError, match="sph2pipe"):
        read_channels(compressed)


def test_compressed_file_is_read_by_sph2pipe(compressed, monkeypatch, tmp_path):
    program = tmp_path / "bin" / "sph2pipe"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\n"
        "import io, sys, numpy, soundfile\n"
        f"assert sys.argv[1:] == ['-f', 'wav', '-p', {str(compressed)!r}], sys.argv\n"
        "out = io.BytesIO()\n"
        "sides = numpy.array([[1, -2], [3, -4]], 'int16')\n"
        "soundfile.write(out, sides, 8000, format='WAV')\n"
        "sys.stdout.buffer.write(out.getvalue())\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    assert require_readable([(compressed, read_header(compressed))])
    assert read_channels(compressed).tolist() == [[1, -2], [3, -4]]


def test_lhotse_opens_plain_files_without_sph2pipe(tmp_path, monkeypatch):
    from lhotse import Recording
    from lhotse.audio import AudioLoadingError
    from lhotse.audio.backend import get_current_audio_backend

    path = tmp_path / "call.sph"
    write_sphere(path, tones(1))
    monkeypatch.setenv("PATH", str(tmp_path))
    before = get_current_audio_backend()
    with pytest.raises(AudioLoadingError, match="sph2pipe"):  # the fault
        Recording.from_file(path)
    with lhotse_reads_sphere(compressed=False):
        assert Recording.from_file(path).num_channels == 2
    assert get_current_audio_backend() is before
