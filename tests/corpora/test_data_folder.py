"""Data folders without pipes: the right channel, cut where it should be."""

from collections import namedtuple

import numpy as np
import pytest
import soundfile
from corpora.switchboard_disks import RATE, TONES, tones, write_sphere

from espnet_quant4.corpora.switchboard import data_folder
from espnet_quant4.corpora.switchboard.data_folder import (
    SILENT,
    require_room,
    write_audio,
    write_data_folder,
)
from espnet_quant4.corpora.switchboard.findings import CorpusError, Findings
from espnet_quant4.corpora.switchboard.sphere import lhotse_reads_sphere
from espnet_quant4.corpora.switchboard.utterances import make_utterance


def pitch(samples):
    return np.argmax(np.abs(np.fft.rfft(samples))) * RATE / len(samples)


@pytest.fixture
def call(tmp_path):
    path = tmp_path / "sw02001.sph"
    write_sphere(path, tones(4))
    return path


@pytest.fixture
def utterances(call):
    return [
        make_utterance("sw02001", 0, (0.5, 1.5), "yeah", call),
        make_utterance("sw02001", 1, (1.25, 3.0), "okay then", call),
        make_utterance("sw02001", 0, (2.0, 4.0), "so", call),
    ]


def read(path):
    return path.read_text().splitlines()


def test_export_of_lhotse_leaves_pipes(call, tmp_path):
    from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet
    from lhotse.kaldi import export_to_kaldi

    with lhotse_reads_sphere(False):
        recording = Recording.from_file(call)
    supervision = SupervisionSegment("a", "sw02001", 0, 1, channel=0, text="a", speaker="a")
    export_to_kaldi(
        RecordingSet.from_recordings([recording]),
        SupervisionSet.from_segments([supervision]),
        tmp_path / "raw",
    )
    assert "sph2pipe" in (tmp_path / "raw" / "wav.scp").read_text()  # the fault


def test_folder_of_sides(utterances, tmp_path):
    audio, folder = tmp_path / "audio", tmp_path / "train"
    kept = write_audio(utterances, audio, Findings("swbd"))
    assert kept == utterances
    write_data_folder(folder, kept, audio)
    assert read(folder / "wav.scp") == [
        f"sw02001-A {audio}/sw02001-A.wav",
        f"sw02001-B {audio}/sw02001-B.wav",
    ]
    for side, tone in zip("AB", TONES, strict=True):
        samples, rate = soundfile.read(audio / f"sw02001-{side}.wav")
        assert (rate, samples.shape) == (RATE, (4 * RATE,))
        assert pitch(samples) == tone
    assert read(folder / "segments") == [
        "sw02001-A_000050-000150 sw02001-A 0.5 1.5",
        "sw02001-A_000200-000400 sw02001-A 2.0 4.0",
        "sw02001-B_000125-000300 sw02001-B 1.25 3.0",
    ]
    assert read(folder / "text")[2] == "sw02001-B_000125-000300 okay then"
    assert read(folder / "utt2spk")[0] == "sw02001-A_000050-000150 sw02001-A"
    assert read(folder / "spk2utt")[0] == (
        "sw02001-A sw02001-A_000050-000150 sw02001-A_000200-000400"
    )
    assert read(folder / "reco2file_and_channel") == ["sw02001-A sw02001 A", "sw02001-B sw02001 B"]
    assert "|" not in (folder / "wav.scp").read_text()


def test_folder_of_utterances(utterances, tmp_path):
    audio, folder = tmp_path / "audio", tmp_path / "train"
    write_data_folder(
        folder, write_audio(utterances, audio, Findings("swbd"), segments=False), audio, False
    )
    assert len(read(folder / "wav.scp")) == 3
    samples, _ = soundfile.read(audio / "sw02001-B_000125-000300.wav")
    assert len(samples) == 1.75 * RATE
    assert abs(pitch(samples) - TONES[1]) < 1
    assert not (folder / "segments").exists()
    assert not (folder / "reco2file_and_channel").exists()  # of sides, which are no recordings here
    assert read(folder / "call_segments")[2] == "sw02001-B_000125-000300 sw02001-B 1.25 3.0"


def test_forms_of_a_folder_leave_nothing_of_each_other(utterances, tmp_path):
    audio, folder = tmp_path / "audio", tmp_path / "train"
    contents = []
    for segments in (True, False, True):
        write_audio(utterances, audio, Findings("swbd"), segments)
        write_data_folder(folder, utterances, audio, segments)
        contents.append({path.name: path.read_text() for path in folder.iterdir()})
    assert contents[0] == contents[2]
    assert set(contents[0]) - set(contents[1]) == {"segments", "reco2file_and_channel"}


def test_silent_side_is_left_out(tmp_path):
    samples = tones(2)
    samples[:, 1] = 0
    path = tmp_path / "sw02001.sph"
    write_sphere(path, samples)
    every = [make_utterance("sw02001", channel, (0.0, 1.0), "a", path) for channel in (0, 1)]
    findings = Findings("swbd")
    assert write_audio(every, tmp_path / "audio", findings) == every[:1]
    assert findings.entries == {SILENT: ["sw02001-B_000000-000100"]}


def test_what_is_written_stays_and_jobs_give_the_same(utterances, tmp_path):
    write_audio(utterances, tmp_path / "one", Findings("swbd"))
    first = tmp_path / "one" / "sw02001-A.wav"
    before = first.stat().st_mtime_ns
    write_audio(utterances, tmp_path / "one", Findings("swbd"))
    assert first.stat().st_mtime_ns == before
    write_audio(utterances, tmp_path / "two", Findings("swbd"), jobs=2)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@pytest.mark.parametrize(("segments", "seconds"), [(True, 8), (False, 4.75)])
def test_disk_without_room_is_refused(utterances, tmp_path, monkeypatch, segments, seconds):
    audio = tmp_path / "audio"
    assert require_room(utterances, audio, segments) == 2 * RATE * seconds
    Usage = namedtuple("Usage", "total used free")
    free = Usage(0, 0, 2 * RATE * seconds - 1)
    monkeypatch.setattr(data_folder.shutil, "disk_usage", lambda _: free)
    with pytest.raises(CorpusError, match=r"audio: .* GB of audio .*--audio"):
        require_room(utterances, audio, segments)
    write_audio(utterances, audio, Findings("swbd"), segments)
    assert require_room(utterances, audio, segments) == 0  # what is there needs none


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(CorpusError, match="train: no utterance is left"):
        write_data_folder(tmp_path / "train", [], tmp_path)
