"""Features on disk: filterbanks normalized by speaker."""

import kaldiio
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_quant4.bin import hybrid_features
from espnet_quant4.hybrid.features.extraction import filterbank
from espnet_quant4.hybrid.features.speakers import normalized_by_speaker, write_filterbanks

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


def test_command(tmp_path, capsys):
    data = write_data(tmp_path / "data")
    options = ["--data", str(data), "--output", str(tmp_path / "out")]
    assert hybrid_features.main(options) == 0
    assert "3 utterances" in capsys.readouterr().out
    (data / "u1.wav").write_bytes(b"no audio")
    assert hybrid_features.main([*options[:3], str(tmp_path / "other")]) == 1
    shown = capsys.readouterr().err
    assert "u1" in shown and "u1.wav" in shown
    with pytest.raises(SystemExit):
        hybrid_features.main([*options, "--num_mels", "0"])
