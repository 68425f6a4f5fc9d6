"""One file holds a whole recognizer; the commands convert and info on it."""

import re
import sys

import numpy as np
import pytest
import soundfile
import torch
import yaml
from espnet2.bin.asr_inference import Speech2Text
from espnet2.main_funcs.pack_funcs import pack
from espnet2.tasks.asr import ASRTask
from int4.small_recognizer import write_recognizer

from espnet_quant4.bin.convert import compare_sizes
from espnet_quant4.bin.main import main
from espnet_quant4.int4.audio import read_audio
from espnet_quant4.int4.file_format import read
from espnet_quant4.int4.model_file import load, save
from espnet_quant4.trained_model import load_trained_model


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
    assert "this machine computes on its codes by: C++ kernels, " in out
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
    assert "is a quantized checkpoint, and the configuration" in capsys.readouterr().err
    assert main(["convert", *arguments, "none.pth", "--output", str(output)]) == 1
    assert not output.exists()


def test_a_file_that_grew_is_not_called_smaller():
    assert compare_sizes(100, 70).endswith(
        "1.43 times larger: what is not weights outweighs them in a model this small"
    )
    assert compare_sizes(70, 100).endswith("1.43 times smaller")


def change(config, target, checkpoint, **changes):
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    content["model_conf"]["scheme"].update(changes)
    (target / "config.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return ["--asr_train_config", str(target / "config.yaml"), "--asr_model_file", str(checkpoint)]


def test_what_the_scheme_leaves_in_float_is_listed_and_the_file_works(
    files, speech, tmp_path, capsys
):
    config, checkpoint, _ = files
    float_input = {"pattern": "ctc.ctc_lo", "input": None}
    float_layer = {"pattern": "joint_network.lin_dec", "weight": None, "input": None}
    overrides = yaml.safe_load(config.read_text())["model_conf"]["scheme"]["overrides"]
    arguments = change(
        config, tmp_path, checkpoint, overrides=[*overrides, float_input, float_layer]
    )
    state = torch.load(checkpoint, weights_only=True)
    gone = ("ctc.ctc_lo.quantizers.input", "joint_network.lin_dec.quantizers")
    state = {name: value for name, value in state.items() if not name.startswith(gone)}
    arguments[-1] = str(tmp_path / "model.pth")
    torch.save(state, arguments[-1])
    output = str(tmp_path / "model.int4")
    assert main(["convert", *arguments, "--output", output]) == 0
    shown = capsys.readouterr().out
    lines = [line for line in shown.splitlines() if line.startswith("float: ")]
    assert len(lines) == 2
    assert any(
        "ctc.ctc_lo (QuantLinear, " in line and "by the scheme: input" in line for line in lines
    )
    assert any("joint_network.lin_dec" in line and "all in float by" in line for line in lines)
    assert main(["transcribe", output, str(speech / "one.wav")]) == 0


def drop_clips(state):
    for name in [name for name in state if "quantizers" in name]:
        del state[name]


def only_foo(state):
    state.clear()
    state["foo"] = torch.ones(1)


def unset_one(state):
    state["encoder.enc.0.nbrnn.quantizers.l0.input.calibrated"].fill_(0)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda state: state.clear(), "holds no parameters"),
        (only_foo, "missing: .* more; 1 not in the model: foo"),
        (lambda state: state.pop("joint_network.lin_out.bias"), "1 missing: joint_network.lin_out"),
        (lambda state: state.update(optimizers=[], model={}), "is the state of a training"),
        (drop_clips, "is a float checkpoint.*clips of activations are missing.*Calibrate first"),
        (lambda state: state["ctc.ctc_lo.bias"].fill_(torch.nan), "tensors hold NaN"),
        (
            unset_one,
            "1 clips of activations were never set: encoder.enc.0.nbrnn.l0.input. Cal",
        ),
    ],
)
def test_convert_takes_no_other_file_for_the_checkpoint(files, tmp_path, capsys, spoil, message):
    config, checkpoint, _ = files
    state = torch.load(checkpoint, weights_only=True)
    spoil(state)
    torch.save(state, tmp_path / "model.pth")
    arguments = ["--asr_train_config", str(config), "--asr_model_file", str(tmp_path / "model.pth")]
    assert main(["convert", *arguments, "--output", str(tmp_path / "model.int4")]) == 1
    error = capsys.readouterr().err
    assert re.search(message, error) and len(error.splitlines()) == 1
    assert not (tmp_path / "model.int4").exists()


def test_convert_refuses_configurations_of_something_else(files, tmp_path, capsys):
    config, checkpoint, _ = files
    (tmp_path / "a.yaml").write_text("a: [\n")
    (tmp_path / "b.yaml").write_text("- 1\n")
    content = yaml.safe_load(config.read_text())
    content["encoder_conf"]["hidden_sizes"] = 3
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    content["normalize_conf"] = {"stats_file": "none.npz"}
    del content["encoder_conf"]["hidden_sizes"]
    (tmp_path / "d.yaml").write_text(yaml.safe_dump(content))
    output = ["--output", str(tmp_path / "model.int4")]
    for option, name, message in (
        ("--asr_train_config", tmp_path / "a.yaml", "not valid YAML"),
        ("--asr_train_config", tmp_path / "b.yaml", "lacks token_list, encoder, decoder"),
        ("--asr_train_config", tmp_path / "c.yaml", "no model can be built .*hidden_sizes"),
        ("--asr_train_config", tmp_path / "d.yaml", "none.npz.*folder where the training ran"),
        ("--asr_train_config", tmp_path, "is a folder"),
        ("--hybrid_train_config", config, "lacks num_pdfs, which HybridTask saves"),
        ("--lm_train_config", config, "lacks lm, which LMTask saves"),
    ):
        model = [option.replace("train_config", "model_file"), str(checkpoint)]
        assert main(["convert", option, str(name), *model, *output]) == 1
        assert re.search(message, capsys.readouterr().err)


def test_convert_takes_a_packed_model(files, tmp_path, capsys, monkeypatch):
    config, checkpoint, output = files
    monkeypatch.chdir(config.parent)
    roles = {"asr_model_file": checkpoint.name}, {"asr_train_config": config.name}
    content = config.read_text().replace(f"{config.parent}/", "")
    (config.parent / "relative.yaml").write_text(content)
    roles[1]["asr_train_config"] = "relative.yaml"
    pack(*roles, outpath=tmp_path / "model.zip", option=["feats_stats.npz"])
    monkeypatch.chdir(tmp_path)
    packed = ["--asr_model_file", "model.zip"]
    assert main(["convert", *packed, "--output", "model.int4"]) == 0
    (found, _), (expected, _) = read(tmp_path / "model.int4"), read(output)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    hybrid = ["--hybrid_model_file", "model.zip", "--output", "model.int4"]
    assert main(["convert", *hybrid]) == 1
    assert "packed model of asr_train_config, asr_model_file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["convert", *packed, "--asr_train_config", str(config), "--output", "model.int4"])
    assert "leave out --asr_train_config" in capsys.readouterr().err
    folder = ["--asr_model_file", str(config.parent), "--output", "model.int4"]
    assert main(["convert", *folder]) == 1
    message = capsys.readouterr().err
    assert "is a folder; give" in message and str(checkpoint) in message and str(config) in message


def test_a_model_of_another_configuration_is_not_written(files, tmp_path):
    config, checkpoint, _ = files
    model, args = load_trained_model(ASRTask, config, checkpoint)
    options = {**vars(args), "encoder_conf": {**args.encoder_conf, "num_layers": 1}}
    with pytest.raises(
        ValueError, match="is not the one that its configuration builds|do not belong"
    ):
        save(model, options, tmp_path / "model.int4")
    assert not (tmp_path / "model.int4").exists()
