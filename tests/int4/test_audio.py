"""Recordings are read from files and pipes, and what is wrong with one is said once, with its name."""

import io
import os
import threading

import numpy as np
import pytest
import soundfile

from espnet_quant4.int4.audio import AudioError, read_audio, sampling_rate_of


@pytest.fixture
def tone(tmp_path):
    """A second at 8 kHz, and as left channel of a FLAC at 16 kHz."""
    samples = 0.3 * np.sin(2 * np.pi * 300 * np.arange(8000) / 8000)
    soundfile.write(tmp_path / "tone.wav", samples, 8000)
    stereo = np.stack([np.repeat(samples, 2), np.zeros(16000)], axis=1)
    soundfile.write(tmp_path / "stereo.flac", stereo, 16000)
    return tmp_path / "tone.wav"


def test_audio_is_resampled_and_mixed(tone):
    direct = read_audio(tone, 8000)
    mixed = read_audio(tone.with_name("stereo.flac"), 8000)
    left = read_audio(tone.with_name("stereo.flac"), 8000, channel=0)
    assert len(mixed) == len(left) == len(direct) == 8000
    np.testing.assert_allclose(mixed, left / 2, atol=1e-6)
    assert np.corrcoef(left, direct)[0, 1] > 0.98
    with pytest.raises(AudioError, match="channel 2; valid are 0 to 1"):
        read_audio(tone.with_name("stereo.flac"), 8000, channel=2)
    rates = [sampling_rate_of(c) for c in (None, {"fs": "8k"}, {"fs": 16000}, {"fs": "44.1k"})]
    assert rates == [16000, 8000, 16000, 44100]


def test_odd_rates_take_no_huge_filter(tmp_path, monkeypatch):
    # torchaudio's filter from 44101 to 16000 Hz has 10^9 weights.
    times = np.arange(44101) / 44101
    soundfile.write(tmp_path / "odd.wav", 0.3 * np.sin(2 * np.pi * 300 * times), 44101)
    monkeypatch.setattr("torchaudio.functional.resample", lambda *_: pytest.fail("filter"))
    found = read_audio(tmp_path / "odd.wav", 16000)
    expected = 0.3 * np.sin(2 * np.pi * 300 * np.arange(16000) / 16000)
    assert len(found) == 16000
    np.testing.assert_allclose(found[1000:-1000], expected[1000:-1000], atol=1e-3)


def test_a_pipe_is_read_to_its_end(tone, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(tone.read_bytes()))
    writer.start()
    try:
        found = read_audio(pipe, 8000)
    finally:
        writer.join()
    np.testing.assert_array_equal(found, read_audio(tone, 8000))


def test_content_decides_and_not_the_name(tone, tmp_path):
    renamed = tmp_path / "tone.raw"
    renamed.write_bytes(tone.read_bytes())
    np.testing.assert_array_equal(read_audio(renamed, 8000), read_audio(tone, 8000))


def wav(samples, **options):
    content = io.BytesIO()
    soundfile.write(content, samples, 8000, format="WAV", **options)
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.wav", None, "no such file"),
        ("empty.wav", b"", "not audio that libsndfile reads"),
        ("text.wav", b"no audio", "not audio that libsndfile reads"),
        ("samples.raw", bytes(1000), "without a header need one first, such as by: sox"),
        ("nothing.wav", wav(np.zeros(0)), "no samples"),
        ("nan.wav", wav(np.array([0.1, np.nan]), subtype="FLOAT"), "NaN or infinite"),
    ],
    # libsndfile writes the time into a file, which must not become part of a test's name.
    ids=["missing", "empty", "text", "raw", "nothing", "nan"],
)
def test_bad_files_are_named_once(name, content, message, tmp_path):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AudioError, match=message) as refused:
        read_audio(path, 8000)
    assert str(refused.value).startswith(f"{path}: ")
    assert str(refused.value).count(name) == 1


def test_folders_devices_and_unreadable_files_are_named_as_such(tmp_path):
    with pytest.raises(AudioError, match=rf"{tmp_path}: is a folder; .* {tmp_path}/\*\.wav"):
        read_audio(tmp_path, 8000)
    with pytest.raises(AudioError, match="/dev/null: is neither a file nor a pipe"):
        read_audio("/dev/null", 8000)
    (tmp_path / "circle.wav").symlink_to(tmp_path / "circle.wav")
    with pytest.raises(AudioError, match=r"circle\.wav: too many levels"):
        read_audio(tmp_path / "circle.wav", 8000)
