"""One file holds a whole recognizer; the commands convert and info on it."""

import sys

import numpy as np
import pytest
import soundfile
import torch
import yaml
from espnet2.bin.asr_inference import Speech2Text
from int4.small_recognizer import write_recognizer

from espnet_quant4.bin.main import main
from espnet_quant4.int4.audio import read_audio
from espnet_quant4.int4.model_file import load


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
    """Two recordings at 8 kHz."""
    folder = tmp_path_factory.mktemp("speech")
    rng = np.random.default_rng(1)
    for name, seconds in (("one", 1.3), ("two", 0.7)):
        times = np.arange(int(8000 * seconds)) / 8000
        tone = 0.3 * np.sin(2 * np.pi * (300 + 900 * times) * times)
        soundfile.write(folder / f"{name}.wav", tone + 0.02 * rng.normal(size=tone.shape), 8000)
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
