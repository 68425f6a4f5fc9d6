"""Features on disk: filterbanks normalized by speaker."""

import kaldiio
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_quant4.bin import hybrid_features
from espnet_quant4.bin.command import run_command
from espnet_quant4.hybrid.features.extraction import (
    FeatureError,
    compute_features,
    filterbank,
    mfcc,
)
from espnet_quant4.hybrid.features.speakers import normalized_by_speaker, write_filterbanks
from espnet_quant4.hybrid.kaldi_files.archives import Matrices
from espnet_quant4.hybrid.kaldi_files.tokens import KaldiFileError

RATE = 8000


def write_data(folder, seconds=(0.5, 0.73, 0.4)):
    """Write three recordings, the first two of one speaker."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for number, length in enumerate(seconds):
        samples = rng.normal(size=round(length * RATE)) * 0.1 * (number + 1)
        soundfile.write(folder / f"u{number}.wav", samples, RATE)
    names = [f"u{number}" for number in range(len(seconds))]
    (folder / "wav.scp").write_text("".join(f"{n} {folder}/{n}.wav\n" for n in names))
    (folder / "utt2spk").write_text("u0 ann\nu1 ann\nu2 bob\n")
    return folder


@given(st.integers(1, 2 * RATE), st.integers(3, 30))
@settings(max_examples=20, deadline=None)
def test_a_frame_every_ten_milliseconds(samples, num_mels):
    speech = np.random.default_rng(samples).normal(size=samples).astype(np.float32) * 0.1
    feats = filterbank(speech, RATE, num_mels)
    # Kaldi's count without snip_edges.
    assert feats.shape == ((samples + 40) // 80, num_mels)
    assert feats.dtype == np.float32 and np.isfinite(feats).all()


def test_each_speaker_has_mean_0_and_variance_1(tmp_path):
    data = write_data(tmp_path / "data")
    assert write_filterbanks(data, tmp_path / "out", 12) == 3
    feats = kaldiio.load_scp(str(tmp_path / "out/feats.scp"))
    assert feats["u0"].shape == (50, 12) and feats["u1"].shape == (73, 12)
    for utterances in (["u0", "u1"], ["u2"]):
        frames = np.concatenate([feats[u] for u in utterances])
        np.testing.assert_allclose(frames.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(frames.std(0), 1, atol=1e-4)
    assert abs(feats["u0"].mean()) > 0.1, "the louder utterance of a speaker stays louder"


def test_an_utterance_without_speaker_is_its_own():
    values = np.arange(8.0).reshape(4, 2)
    (found,) = dict(normalized_by_speaker({"u": values}, {})).values()
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-7)


def test_what_never_changes_becomes_0():
    (found,) = dict(normalized_by_speaker({"u": np.ones((4, 2))}, {"u": "s"})).values()
    assert (found == 0).all()


def test_written_once_and_again_for_other_sizes(tmp_path):
    data = write_data(tmp_path / "data")
    index = tmp_path / "out/feats.scp"
    write_filterbanks(data, tmp_path / "out", 12)
    first = index.stat().st_mtime_ns
    write_filterbanks(data, tmp_path / "out", 12)
    assert index.stat().st_mtime_ns == first
    write_filterbanks(data, tmp_path / "out", 8)
    assert kaldiio.load_scp(str(index))["u2"].shape == (40, 8)


def spoil(folder, name, how):
    """Make a recording one that cannot be used."""
    path = folder / f"{name}.wav"
    samples, rate = soundfile.read(path, dtype="float32")
    if how == "NaN":
        samples[1234] = np.nan
        soundfile.write(path, samples, rate, subtype="FLOAT")
    elif how == "infinite":
        samples[[3, 5]] = np.inf, -np.inf
        soundfile.write(path, samples, rate, subtype="FLOAT")
    elif how == "empty":
        soundfile.write(path, samples[:0], rate)
    elif how == "short":
        soundfile.write(path, samples[:30], rate)
    elif how == "stereo":
        soundfile.write(path, np.stack([samples, samples], 1), rate)
    elif how == "other rate":
        soundfile.write(path, samples, 2 * rate)
    elif how == "cut off":
        path.write_bytes(path.read_bytes()[:1000])
    elif how == "cut off in the head":
        path.write_bytes(path.read_bytes()[:30])
    elif how == "cut off FLAC":
        soundfile.write(path, samples, rate, format="FLAC")
        path.write_bytes(path.read_bytes()[:2000])
    elif how == "cut off Ogg":
        soundfile.write(path, samples, rate, format="OGG")
        path.write_bytes(path.read_bytes()[:3800])
    elif how == "missing":
        path.unlink()
    else:
        path.write_bytes(b"no audio")


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("NaN", "1 samples are NaN or infinite, the first at 0.154 s"),
        ("infinite", "2 samples are NaN or infinite, the first at 0.000 s"),
        ("empty", r"shape \(0,\); valid is audio of one channel"),
        ("short", "30 samples are too few for a frame"),
        ("stereo", r"shape \(5840, 2\); valid is audio of one channel"),
        ("other rate", "16000 Hz, but u0 has 8000 Hz"),
        ("cut off", "is cut off: 478 samples are left"),
        ("cut off in the head", "u1.wav"),
        ("cut off FLAC", "u1.wav"),
        ("cut off Ogg", "u1.wav"),
        ("missing", "no such file"),
        ("no audio", "Format not recognised"),
    ],
)
def test_a_recording_that_cannot_be_used_is_named(tmp_path, how, says):
    data = write_data(tmp_path / "data")
    spoil(data, "u1", how)
    with pytest.raises(FeatureError, match=says) as error:
        compute_features(data, tmp_path / "out", mfcc)
    message = str(error.value)
    assert (
        f"{data}/wav.scp: 1 of 3 recordings cannot be used: line 2: u1: {data}/u1.wav: " in message
    )
    assert not (tmp_path / "out/feats.scp").exists()
    write_data(tmp_path / "data")
    compute_features(data, tmp_path / "out", mfcc)
    assert len(Matrices(tmp_path / "out/feats.scp")) == 3


def test_all_recordings_that_cannot_be_used_are_named_at_once(tmp_path):
    data = write_data(tmp_path / "data")
    spoil(data, "u0", "NaN")
    spoil(data, "u2", "missing")
    with pytest.raises(FeatureError, match="2 of 3 .*line 1: u0: .*NaN.*line 3: u2: .*no such"):
        compute_features(data, tmp_path / "out", mfcc)


def test_a_file_that_was_written_to_a_pipe_is_whole(tmp_path):
    """Its head states a size that no file has."""
    data = write_data(tmp_path / "data")
    content = bytearray((data / "u1.wav").read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = content[4:8] = b"\xff\xff\xff\xff"
    (data / "u1.wav").write_bytes(content)
    compute_features(data, tmp_path / "out", mfcc)
    assert Matrices(tmp_path / "out/feats.scp")["u1"].shape == (73, 13)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("u1 sox u1.flac -t wav - |", "u1: sox .* is a command; valid is an audio file"),
        ("u0 /u0.wav", "wav.scp:4: 'u0' stands here and in line 1"),
    ],
)
def test_a_list_of_recordings_that_is_none(tmp_path, line, says):
    data = write_data(tmp_path / "data")
    text = (data / "wav.scp").read_text()
    kept = (
        [row for row in text.splitlines() if row.split()[0] != "u1"]
        if "|" in line
        else [text.strip()]
    )
    (data / "wav.scp").write_text("\n".join([*kept, line]) + "\n")
    with pytest.raises(ValueError, match=says):
        compute_features(data, tmp_path / "out", mfcc)
    (data / "wav.scp").write_text("\n")
    with pytest.raises(FeatureError, match="no recording in it"):
        compute_features(data, tmp_path / "out", mfcc)


def test_another_recording_or_speaker_makes_features_anew(tmp_path, capsys):
    data = write_data(tmp_path / "data")
    arguments = ["--data", str(data), "--output", str(tmp_path / "out"), "--num_mels", "12"]

    def run():
        assert run_command("hybrid-features", hybrid_features.main, arguments) == 0
        return capsys.readouterr().out

    run()
    assert "there already" in run()
    (data / "utt2spk").write_text("u0 ann\nu1 bob\nu2 bob\n")
    assert f"made anew, since {data}/utt2spk changed" in run()
    samples, rate = soundfile.read(data / "u0.wav")
    soundfile.write(data / "u0.wav", samples[:2000], rate)
    assert f"a file that {data}/wav.scp names changed" in run()
    assert Matrices(tmp_path / "out/feats.scp")["u0"].shape == (25, 12)
    (tmp_path / "out/feats.ark").write_bytes(b"")
    with pytest.raises(KaldiFileError, match=r"feats\.scp:1: u0: .*cannot be read"):
        Matrices(tmp_path / "out/feats.scp")["u0"]


def test_command(tmp_path, capsys):
    data = write_data(tmp_path / "data")
    options = ["--data", str(data), "--output", str(tmp_path / "out")]
    assert run_command("hybrid-features", hybrid_features.main, options) == 0
    assert "3 utterances" in capsys.readouterr().out
    (data / "u1.wav").write_bytes(b"no audio")
    assert (
        run_command(
            "hybrid-features", hybrid_features.main, [*options[:3], str(tmp_path / "other")]
        )
        == 1
    )
    shown = capsys.readouterr().err
    assert "u1" in shown and "u1.wav" in shown
    with pytest.raises(SystemExit):
        run_command("hybrid-features", hybrid_features.main, [*options, "--num_mels", "0"])
