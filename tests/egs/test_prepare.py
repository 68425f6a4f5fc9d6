"""The data stages that are the recipes' own: speeds, format, too short and too long."""

import sys

import numpy as np
import pytest
import soundfile
from egs.recipes import load, read_table

prepare = load("common/prepare.py")
RATE = 8000


@pytest.fixture
def call(monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["prepare.py", *map(str, arguments)])
        return prepare.main()

    return run


def make_folder(folder, recordings, texts=None):
    """Write a data folder with recordings `{utterance: (samples, rate)}`."""
    folder.mkdir(parents=True)
    for name, (samples, rate) in recordings.items():
        soundfile.write(folder / f"{name}.wav", samples, rate, subtype="FLOAT")
    texts = texts or {}
    tables = {
        "wav.scp": {name: folder / f"{name}.wav" for name in recordings},
        "text": {name: texts.get(name, "some words") for name in recordings},
        "utt2spk": {name: name.partition("-")[0] for name in recordings},
    }
    for file, table in tables.items():
        (folder / file).write_text("".join(f"{k} {v}\n" for k, v in table.items()))
    return folder


def tone(seconds, rate=RATE):
    return np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate).astype(np.float32) / 2


def test_speeds_change_length_and_keep_text(tmp_path, call):
    source = make_folder(tmp_path / "train", {"amy-1": (tone(1.0), RATE)})
    call("perturb", source, tmp_path / "sp", "--fs", RATE, "--factors", "0.9", "1.0", "1.1")
    paths = read_table(tmp_path / "sp" / "wav.scp")
    assert sorted(paths) == ["amy-1", "sp0.9-amy-1", "sp1.1-amy-1"]
    lengths = {name: soundfile.info(path).frames for name, path in paths.items()}
    assert lengths["amy-1"] == RATE
    assert lengths["sp0.9-amy-1"] == pytest.approx(RATE / 0.9, abs=2)
    assert lengths["sp1.1-amy-1"] == pytest.approx(RATE / 1.1, abs=2)
    # Pitch moves with speed: that of the slow copy is 0.9 times as high.
    slow, _ = soundfile.read(paths["sp0.9-amy-1"])
    peak = np.argmax(np.abs(np.fft.rfft(slow))) * RATE / len(slow)
    assert peak == pytest.approx(0.9 * 440, abs=2)
    assert set(read_table(tmp_path / "sp" / "text").values()) == {"some words"}
    assert read_table(tmp_path / "sp" / "utt2spk")["sp0.9-amy-1"] == "sp0.9-amy"
    assert read_table(tmp_path / "sp" / "spk2utt")["sp1.1-amy"] == "sp1.1-amy-1"


def test_format_writes_16_bit_audio_and_lengths(tmp_path, call):
    source = make_folder(tmp_path / "dev", {"amy-1": (tone(0.5), RATE), "bob-1": (tone(1), RATE)})
    call("format", source, tmp_path / "out", "--fs", RATE)
    assert read_table(tmp_path / "out" / "utt2num_samples") == {"amy-1": "4000", "bob-1": "8000"}
    path = read_table(tmp_path / "out" / "wav.scp")["amy-1"]
    assert soundfile.info(path).subtype == "PCM_16"
    assert np.abs(soundfile.read(path)[0] - tone(0.5)).max() < 2**-14
    assert (tmp_path / "out" / "feats_type").read_text() == "raw\n"


def test_a_second_run_leaves_files_untouched(tmp_path, call):
    source = make_folder(tmp_path / "dev", {"amy-1": (tone(0.5), RATE)})
    call("format", source, tmp_path / "out", "--fs", RATE)
    tables = sorted((tmp_path / "out").glob("[twu]*"))
    before = [path.stat().st_mtime_ns for path in tables]
    call("format", source, tmp_path / "out", "--fs", RATE)
    after = [path.stat().st_mtime_ns for path in tables if path.name != "feats_type"]
    assert after == before


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (tone(1, 16000), 16000, r"bad-1\.wav: 16000 Hz, 1 channel.*8000 Hz mono.*sox"),
        (np.stack([tone(1), tone(1)], axis=1), RATE, r"bad-1\.wav: 8000 Hz, 2 channel"),
        (np.where(np.arange(RATE) == 7, np.nan, 0.1), RATE, r"bad-1\.wav: holds NaN"),
    ],
)
def test_audio_that_does_not_fit_the_model_is_an_error(tmp_path, call, samples, rate, message):
    source = make_folder(tmp_path / "dev", {"bad-1": (samples, rate)})
    with pytest.raises(SystemExit, match=message):
        call("format", source, tmp_path / "out", "--fs", RATE)


def test_what_is_no_audio_is_an_error(tmp_path, call):
    source = make_folder(tmp_path / "dev", {"bad-1": (tone(1), RATE)})
    (source / "bad-1.wav").write_text("not audio")
    with pytest.raises(SystemExit, match=r"bad-1\.wav: cannot be read as audio"):
        call("format", source, tmp_path / "out", "--fs", RATE)


def test_silence_is_left_out_with_a_count(tmp_path, call, capsys):
    recordings = {"amy-1": (tone(1), RATE), "amy-2": (np.zeros(RATE), RATE)}
    call("format", make_folder(tmp_path / "dev", recordings), tmp_path / "out", "--fs", RATE)
    assert "dev: left out 1 silent recordings, first amy-2" in capsys.readouterr().out
    for file in ("wav.scp", "text", "utt2spk", "utt2num_samples"):
        assert list(read_table(tmp_path / "out" / file)) == ["amy-1"]


def test_short_long_and_empty_utterances_are_left_out_with_a_count(tmp_path, call, capsys):
    recordings = {f"amy-{i}": (tone(s), RATE) for i, s in enumerate([0.0, 0.1, 1.0, 3.0, 1.0])}
    source = make_folder(tmp_path / "train", recordings, texts={"amy-4": ""})
    call("format", source, tmp_path / "org", "--fs", RATE)
    limits = ["--min_seconds", "0.2", "--max_seconds", "2"]
    call("filter", tmp_path / "org", tmp_path / "kept", "--fs", RATE, *limits)
    assert list(read_table(tmp_path / "kept" / "text")) == ["amy-2"]
    assert (
        "kept 1 utterances; left out 2 under 0.2 s, 1 over 2 s, 1 without text"
        in capsys.readouterr().out
    )
    with pytest.raises(SystemExit, match="no utterance is left of 5"):
        limits = ["--min_seconds", "5", "--max_seconds", "9"]
        call("filter", tmp_path / "org", tmp_path / "none", "--fs", RATE, *limits)


def test_tables_of_different_utterances_are_an_error(tmp_path, call):
    source = make_folder(tmp_path / "dev", {"amy-1": (tone(1), RATE)})
    (source / "text").write_text("amy-2 hello\n")
    with pytest.raises(SystemExit, match=r"\['amy-1', 'amy-2'\].*not in both wav.scp and text"):
        call("format", source, tmp_path / "out", "--fs", RATE)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xef\xbb\xbfa one\r\nb two\r\n", None),
        (b"a one\na two\n", ":2: 'a' stands here and in line 1"),
        (b"a one\nb \xe9t\xe9\n", ":2: byte 0xe9 is not UTF-8"),
        (None, "run the stage before this one"),
    ],
)
def test_tables_are_read_as_everywhere(tmp_path, content, said):
    prepare, path = load("common/prepare.py"), tmp_path / "text"
    if content is not None:
        path.write_bytes(content)
    if said is None:
        assert prepare.read_table(path) == {"a": "one", "b": "two"}
        return
    with pytest.raises(SystemExit, match=f"{path}.*{said}"):
        prepare.read_table(path)
