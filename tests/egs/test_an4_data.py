"""AN4's data stage on made-up corpora in its two layouts."""

import shutil
import sys
import tarfile

import numpy as np
import pytest
import soundfile
from egs.recipes import load, read_table

an4 = load("an4/asr1/local/data.py")

TRAIN = [
    ("an251-fash-b", "fash", "YES"),
    ("an1-mabw-b", "mabw", "X I"),
    ("cen2-fbbh-b", "fbbh", "A"),
]
TEST = [("an406-fcaw-b", "fcaw", "RUBOUT G")]
PARTS = {"train": TRAIN, "test": TEST}


def write_audio(path, format):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(1600, dtype=np.float32), 16000, format=format)


@pytest.fixture
def tables(tmp_path):
    """The layout with .tsv lists and FLAC in a tar file."""
    folder = tmp_path / "an4"
    folder.mkdir()
    for part, rows in PARTS.items():
        lines = ["utt\tspeaker\ttext", *("\t".join(row) for row in rows)]
        (folder / f"{part}.tsv").write_text("\n".join(lines) + "\n")
        for name, speaker, _ in rows:
            write_audio(folder / "audio" / part / speaker / f"{name}.flac", "FLAC")
    with tarfile.open(folder / "audio.tar", "w") as archive:
        archive.add(folder / "audio", arcname="audio")
    shutil.rmtree(folder / "audio")
    return folder


@pytest.fixture
def distribution(tmp_path):
    """The layout of CMU's own archive."""
    folder = tmp_path / "cmu"
    (folder / "etc").mkdir(parents=True)
    for part, rows in PARTS.items():
        sub_folder = {"train": "an4_clstk", "test": "an4test_clstk"}[part]
        lines = [f"<s> {text} </s> ({name})" for name, _, text in rows]
        if part == "test":
            lines = [f"{text} ({name})" for name, _, text in rows]
        (folder / "etc" / f"an4_{part}.transcription").write_text("\n".join(lines) + "\n")
        for name, speaker, _ in rows:
            write_audio(folder / "wav" / sub_folder / speaker / f"{name}.sph", "NIST")
    return folder


def run(monkeypatch, tmp_path, *arguments):
    command = ["data.py", "--data", tmp_path / "data", "--downloads", tmp_path / "dl", *arguments]
    monkeypatch.setattr(sys, "argv", list(map(str, command)))
    return an4.main()


@pytest.mark.parametrize("layout", ["tables", "distribution"])
def test_both_layouts_give_the_same_data(layout, request, monkeypatch, tmp_path):
    folder = request.getfixturevalue(layout)
    assert run(monkeypatch, tmp_path, "--an4", folder) == 0
    texts = {
        part: read_table(tmp_path / "data" / part / "text") for part in ("train", "dev", "test")
    }
    assert texts == {
        "train": {"fbbh-cen2-fbbh-b": "A", "mabw-an1-mabw-b": "X I"},
        "dev": {"fash-an251-fash-b": "YES"},
        "test": {"fcaw-an406-fcaw-b": "RUBOUT G"},
    }
    for part, expected in texts.items():
        data = tmp_path / "data" / part
        for path in read_table(data / "wav.scp").values():
            assert soundfile.info(path).samplerate == 16000
        speakers = read_table(data / "utt2spk")
        assert list(speakers) == list(expected)
        assert {s for s, _ in read_table(data / "spk2utt").items()} == set(speakers.values())


def test_the_environment_names_the_corpus(monkeypatch, tmp_path, tables):
    monkeypatch.setenv("AN4", str(tables))
    assert run(monkeypatch, tmp_path) == 0
    assert (tmp_path / "data" / "test" / "text").is_file()


def test_a_wrong_folder_is_an_error_and_not_a_download(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("AN4", raising=False)
    assert run(monkeypatch, tmp_path, "--an4", tmp_path, "--download", "true") == 1
    shown = capsys.readouterr().err
    assert "neither train.tsv nor etc/an4_train.transcription" in shown
    assert "--local_data_opts" in shown


def test_missing_audio_is_an_error(monkeypatch, tmp_path, capsys, distribution):
    next(iter((distribution / "wav").rglob("*.sph"))).unlink()
    assert run(monkeypatch, tmp_path, "--an4", distribution) == 1
    assert "1 audio files are missing" in capsys.readouterr().err


def test_dev_speakers_are_of_both_sexes():
    # The first letter of a speaker's name is the sex.
    sexes = [speaker[0] for speaker in an4.DEV_SPEAKERS]
    assert sexes.count("f") >= 2 and sexes.count("m") >= 2


def test_a_table_of_other_columns_is_named_with_its_line(tmp_path):
    module = load("an4/asr1/local/data.py")
    (tmp_path / "downloads/audio").mkdir(parents=True)
    (tmp_path / "train.tsv").write_text("utt\tspeaker\ttext\na\tb\n")
    with pytest.raises(SystemExit, match=r"train\.tsv:2: 2 columns; valid are three"):
        module.read_folder_of_tables(tmp_path, tmp_path / "downloads")
