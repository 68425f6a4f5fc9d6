"""Digit strings made from single recordings: parts, counts, noise, and a broken corpus."""

import hashlib
import sys
import tarfile
from collections import Counter

import numpy as np
import pytest
import soundfile
from egs.recipes import load, read_table

fsdd = load("fsdd/hybrid1/local/data.py")
strings = sys.modules["strings"]

RATE = 8000
SPEAKERS = ("ann", "bob", "cy")
LEVELS = {"ann": 0.001, "bob": 0.002, "cy": 0.004}


def recording(digit, speaker, index):
    """A tone of the digit's own pitch, 150 ms, with the speaker's noise at its end."""
    random = np.random.default_rng([digit, index, len(speaker), ord(speaker[0])])
    tone = 0.3 * np.sin(2 * np.pi * (200 + 100 * digit) * np.arange(1200) / RATE)
    noise = random.normal(0, LEVELS[speaker], 1600)
    noise[:1200] += tone
    return noise.astype(np.float32)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fsdd") / "recordings"
    folder.mkdir()
    for digit in range(10):
        for speaker in SPEAKERS:
            for index in (0, 4, 5, 9, 10, 49):
                path = folder / f"{digit}_{speaker}_{index}.wav"
                soundfile.write(path, recording(digit, speaker, index), RATE)
    (folder / "notes.txt").write_text("not a recording")
    return folder.parent


def run(monkeypatch, tmp_path, *arguments, data="data"):
    monkeypatch.delenv("FSDD", raising=False)
    command = [
        *("data.py", "--data", tmp_path / data, "--downloads", tmp_path / "dl"),
        *("--unseen_speaker", "cy"),
        *arguments,
    ]
    monkeypatch.setattr(sys, "argv", list(map(str, command)))
    return fsdd.main()


@pytest.fixture
def data(monkeypatch, tmp_path, corpus):
    assert run(monkeypatch, tmp_path, "--fsdd", corpus) == 0
    return tmp_path / "data"


def test_every_recording_is_in_its_part_as_often_as_said(data):
    # Two numbers of each digit a part; train has each in two strings; cy's are all unseen.
    times = {"train": 2 * 2 * 2, "dev": 2 * 2, "test": 2 * 2, "test_unseen": 6}
    for part, expected in times.items():
        texts = read_table(data / part / "text")
        counts = Counter(word for text in texts.values() for word in text.split())
        assert counts == dict.fromkeys(fsdd.WORDS, expected), part
        assert all(3 <= len(text.split()) <= 7 for text in texts.values())
        speakers = set(read_table(data / part / "utt2spk").values())
        assert speakers == ({"cy"} if part == "test_unseen" else {"ann", "bob"})
        assert set(read_table(data / part / "spk2utt")) == speakers


def test_a_string_is_what_its_text_says(data):
    for name, path in read_table(data / "test" / "wav.scp").items():
        audio, rate = soundfile.read(path)
        assert rate == RATE
        spectra = np.abs(np.fft.rfft(np.lib.stride_tricks.sliding_window_view(audio, 400)[::80]))
        loud = spectra.max(1) > 10
        heard = []
        for spectrum, before, now in zip(spectra[1:], loud[:-1], loud[1:], strict=True):
            if now and not before:
                heard.append([])
            if now:
                heard[-1].append(np.argmax(spectrum) * RATE / 400)
        digits = [round((np.median(pitches) - 200) / 100) for pitches in heard]
        words = read_table(data / "test" / "text")[name].split()
        assert [fsdd.WORDS[digit] for digit in digits] == words


def test_gaps_hold_the_speakers_own_noise(data):
    for part, speaker in (("test", "bob"), ("test_unseen", "cy")):
        paths = read_table(data / part / "wav.scp")
        levels = [
            soundfile.read(path)[0][:400].std()
            for name, path in paths.items()
            if name.startswith(speaker)
        ]
        assert np.mean(levels) == pytest.approx(LEVELS[speaker], rel=0.15)


def test_the_seed_says_which_strings(monkeypatch, tmp_path, corpus, data):
    def checksums(folder):
        files = sorted((tmp_path / folder / "train" / "audio").iterdir())
        return [(f.name, hashlib.md5(f.read_bytes()).hexdigest()) for f in files]

    assert run(monkeypatch, tmp_path, "--fsdd", corpus, data="again") == 0
    assert checksums("again") == checksums("data")
    assert run(monkeypatch, tmp_path, "--fsdd", corpus, "--seed", 2, data="again") == 0
    # None is left of the first seed's, and no name stands for two strings.
    assert not set(dict(checksums("again"))) & set(dict(checksums("data")))
    listed = {
        path.rpartition("/")[2] for path in read_table(tmp_path / "again/train/wav.scp").values()
    }
    assert set(dict(checksums("again"))) == listed


def test_a_tar_file_and_the_environment_will_do(monkeypatch, tmp_path, corpus, data):
    archive = tmp_path / "recordings.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(corpus / "recordings", arcname="recordings")
    assert run(monkeypatch, tmp_path, "--fsdd", archive, data="tar") == 0
    assert (tmp_path / "tar/test/text").read_text() == (data / "test/text").read_text()


def test_broken_recordings_are_named(monkeypatch, tmp_path, capsys):
    (tmp_path / "7_ann_3.flac").write_bytes(b"fLaC\0\0\0\x22")
    soundfile.write(tmp_path / "7_ann_4.wav", np.zeros(100), 16000)
    assert run(monkeypatch, tmp_path, "--fsdd", tmp_path, "--download", "true") == 1
    shown = capsys.readouterr().err
    assert "2 of 2 recordings are unusable" in shown and "7_ann_3.flac" in shown
    assert "no usable DIGIT_SPEAKER_INDEX" in shown and "--local_data_opts" in shown


def test_an_unknown_speaker_is_refused_with_the_choices(monkeypatch, tmp_path, capsys, corpus):
    assert run(monkeypatch, tmp_path, "--fsdd", corpus, "--unseen_speaker", "dan") == 1
    assert "--unseen_speaker dan; valid: one of ann, bob, cy" in capsys.readouterr().err


@pytest.mark.parametrize("number", range(3, 60))
def test_strings_have_three_to_seven_digits_whatever_the_number(number):
    digits = [strings.Digit(i % 10, "ann", i, np.zeros(1, np.float32)) for i in range(number)]
    dealt = strings.draw_strings(digits, 2, np.random.default_rng(number))
    assert all(3 <= len(string) <= 7 for string in dealt)
    assert Counter(d.index for string in dealt for d in string) == dict.fromkeys(range(number), 2)


def test_noise_keeps_its_power():
    pieces = np.random.default_rng(0).normal(0, 0.1, (200, 160)).astype(np.float32)
    noise = strings.make_noise(40000, pieces, np.random.default_rng(1))
    assert noise.shape == (40000,)
    power = (noise.reshape(-1, 8000) ** 2).mean(1)
    assert power == pytest.approx(np.full(5, 0.01), rel=0.1)
