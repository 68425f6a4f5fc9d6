"""One file holds a whole recognizer; the commands convert, info and transcribe on it."""

import io
import json
import sys

import numpy as np
import pytest
import soundfile
import torch
import yaml
from espnet2.bin.asr_inference import Speech2Text
from int4.small_recognizer import write_recognizer

from espnet_quant4.bin.main import main
from espnet_quant4.int4.audio import AudioError, read_audio, sampling_rate_of
from espnet_quant4.int4.model_file import load
from espnet_quant4.int4.streaming import StreamingRecognizer


@pytest.fixture(scope="module", params=[True, False], ids=["bidirectional", "unidirectional"])
def files(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recognizer")
    config, checkpoint = write_recognizer(folder, request.param)
    output = folder / "model.int4"
    arguments = ["--asr_train_config", str(config), "--asr_model_file", str(checkpoint)]
    assert main(["convert", *arguments, "--output", str(output)]) == 0
    return config, checkpoint, output


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """Two recordings at 8 kHz, the second also as stereo at 16 kHz."""
    folder = tmp_path_factory.mktemp("speech")
    rng = np.random.default_rng(1)
    for name, seconds in (("one", 1.3), ("two", 0.7)):
        times = np.arange(int(8000 * seconds)) / 8000
        tone = 0.3 * np.sin(2 * np.pi * (300 + 900 * times) * times)
        soundfile.write(folder / f"{name}.wav", tone + 0.02 * rng.normal(size=tone.shape), 8000)
    samples, _ = soundfile.read(folder / "two.wav")
    stereo = np.stack([np.repeat(samples, 2), np.zeros(2 * len(samples))], axis=1)
    soundfile.write(folder / "stereo.flac", stereo, 16000)
    return folder


def test_the_file_alone_gives_the_emulated_results(files, speech, tmp_path, monkeypatch):
    config, checkpoint, output = files
    moved = tmp_path / "moved.int4"
    moved.write_bytes(output.read_bytes())
    monkeypatch.chdir(tmp_path)
    # What training left is not looked at.
    hidden = config.parent / "feats_stats.npz"
    hidden.rename(hidden.with_suffix(".hidden"))
    try:
        deployed = load(moved, beam_size=2, ctc_weight=0.0)
    finally:
        hidden.with_suffix(".hidden").rename(hidden)
    monkeypatch.setenv("ESPNET_QUANT4_INFERENCE", "emulated")
    emulated = Speech2Text(config, checkpoint, beam_size=2, ctc_weight=0.0)
    for name in ("one", "two"):
        samples = read_audio(speech / f"{name}.wav", 8000)
        (text, _tokens, ids, found), (expected, _, _, hypothesis) = (
            recognizer(samples)[0] for recognizer in (deployed, emulated)
        )
        assert text == expected and len(ids) > 0
        assert float(found.score) == pytest.approx(float(hypothesis.score), abs=1e-3)


def test_batches_and_single_utterances_agree(files, speech):
    encoder = load(files[2], beam_size=1, ctc_weight=0.0).asr_model.encoder
    torch.manual_seed(0)
    feats = [torch.randn(frames, 10) for frames in (40, 7, 23)]
    lengths = torch.tensor([len(f) for f in feats])
    with torch.no_grad():
        both, out_lengths, _ = encoder(
            torch.nn.utils.rnn.pad_sequence(feats, batch_first=True), lengths
        )
        for i, one in enumerate(feats):
            alone, _, _ = encoder(one.unsqueeze(0), lengths[i : i + 1])
            assert torch.equal(both[i, : out_lengths[i]], alone[0])


def test_the_command_line_of_the_program_is_its_own(files, monkeypatch):
    # ESPnet's defaults come from a parser that would read it.
    monkeypatch.setattr(sys, "argv", ["program", "--data", "x", "--encoder", "conformer", "--bad"])
    assert type(load(files[2]).asr_model.encoder).__name__ == "QuantRNNEncoder"


def test_info(files, capsys):
    assert main(["info", str(files[2])]) == 0
    out = capsys.readouterr().out
    assert "encoder.enc.0.nbrnn.weight_ih_l1" in out and "80x" in out
    line = next(line for line in out.splitlines() if line.endswith("joint_network.lin_out.weight"))
    assert line.split()[0] == "8"
    assert "times smaller" in out and "quant_rnn + quant_transducer" in out
    assert main(["info", "none.int4"]) == 1
    assert "no such file" in capsys.readouterr().err


def test_transcribe_text_json_stdin_and_bad_files(files, speech, capsys, monkeypatch):
    one, two = str(speech / "one.wav"), str(speech / "two.wav")
    assert main(["transcribe", str(files[2]), one]) == 0
    text = capsys.readouterr().out.rstrip("\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{two}\n\n{one}\n"))
    assert main(["transcribe", str(files[2]), "-", "--format", "json", "--num_threads", "1"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["file"] for line in lines] == [two, one]
    assert (
        lines[1]["text"] == text and lines[1]["end"] == 1.3 and lines[1]["processing_seconds"] > 0
    )
    (speech / "text.wav").write_text("no audio")
    soundfile.write(speech / "empty.wav", np.zeros(0), 8000)
    bad = [str(speech / "text.wav"), str(speech / "empty.wav"), str(speech / "none.wav")]
    assert main(["transcribe", str(files[2]), *bad, one]) == 1
    captured = capsys.readouterr()
    assert captured.out == f"{one} {text}\n"
    assert all(name in captured.err for name in bad)
    assert main(["transcribe", "none.int4", one]) == 1
    with pytest.raises(SystemExit):
        main(["transcribe", str(files[2]), one, "--beam_size", "0"])


def test_audio_is_resampled_and_mixed(speech):
    direct = read_audio(speech / "two.wav", 8000)
    mixed = read_audio(speech / "stereo.flac", 8000)
    left = read_audio(speech / "stereo.flac", 8000, channel=0)
    assert len(mixed) == len(left) == len(direct)
    np.testing.assert_allclose(mixed, left / 2, atol=1e-6)
    assert np.corrcoef(left, direct)[0, 1] > 0.98
    with pytest.raises(AudioError, match="channel 2; valid are 0 to 1"):
        read_audio(speech / "stereo.flac", 8000, channel=2)
    rates = [sampling_rate_of(c) for c in (None, {"fs": "8k"}, {"fs": 16000}, {"fs": "44.1k"})]
    assert rates == [16000, 8000, 16000, 44100]


@pytest.mark.parametrize("seconds", [0.05, 0.11, 0.5, 9.0])
def test_streaming_equals_the_whole_recording(files, speech, seconds):
    recognizer = load(files[2], beam_size=1, ctc_weight=0.0)
    if recognizer.asr_model.encoder.enc[0].bidirectional:
        with pytest.raises(ValueError, match="bidirectional: false"):
            StreamingRecognizer(recognizer)
        return
    streaming = StreamingRecognizer(recognizer)
    for name in ("one", "two"):
        samples = read_audio(speech / f"{name}.wav", 8000)
        streaming.reset()
        step = int(8000 * seconds)
        for start in range(0, len(samples), step):
            streaming.accept(samples[start : start + step], is_last=start + step >= len(samples))
        with torch.no_grad():
            whole, _ = recognizer.asr_model.encode(
                torch.from_numpy(samples).unsqueeze(0), torch.tensor([len(samples)])
            )
        found = torch.cat(streaming.encoder_out)
        assert found.shape == whole[0].shape
        # The first layer's input has 8 bits: features whose last float32 bit differs seldom matter.
        assert (found - whole[0]).abs().mean() < 2e-3
        assert streaming.text() == recognizer(samples)[0][0]
        assert streaming.token_seconds(8000) == sorted(streaming.token_seconds(8000))


def test_streaming_command(files, speech, capsys):
    one = str(speech / "one.wav")
    status = main(["transcribe", str(files[2]), one, "--chunk_seconds", "0.2", "--format", "json"])
    captured = capsys.readouterr()
    if status == 0:
        assert main(["transcribe", str(files[2]), one]) == 0
        assert json.loads(captured.out)["text"] == capsys.readouterr().out.rstrip("\n")
    else:
        assert status == 1 and "bidirectional: false" in captured.err


def test_convert_refuses_what_is_in_float(files, tmp_path, capsys):
    config, checkpoint, _ = files
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    content["model_conf"]["scheme"] = "fp32"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    arguments = ["--asr_train_config", str(tmp_path / "config.yaml"), "--asr_model_file"]
    output = tmp_path / "model.int4"
    assert main(["convert", *arguments, str(checkpoint), "--output", str(output)]) == 1
    assert "no layer to convert" in capsys.readouterr().err
    assert main(["convert", *arguments, "none.pth", "--output", str(output)]) == 1
    assert not output.exists()
