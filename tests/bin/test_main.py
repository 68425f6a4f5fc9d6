"""The console command and its sub-commands."""

import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import soundfile
import torch
import yaml

from espnet_quant4.bin import main
from espnet_quant4.bin.main import COMMANDS

TOKENS = ["<blank>", "<unk>", "<space>", "a", "b", "<sos/eos>"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        main.main([name, "--help"])
    assert stopped.value.code == 0
    assert "usage: espnet-quant4 " + name in capsys.readouterr().out


def test_commands_are_listed(capsys):
    with pytest.raises(SystemExit):
        main.main(["--help"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


def test_an_unknown_command_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        main.main(["quantise"])
    assert stopped.value.code == 2
    assert "calibrate" in capsys.readouterr().err


def test_the_command_itself_imports_neither_torch_nor_espnet():
    code = (
        "import sys; from espnet_quant4.bin import main\n"
        "try: main.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'espnet2', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.fixture
def corpus(tmp_path):
    """Six short recordings, their tokens, lengths and feature statistics."""
    noise = np.random.default_rng(0)
    names = [f"utt{i}" for i in range(6)]
    for name in names:
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * noise.standard_normal(4000), 8000)
    (tmp_path / "wav.scp").write_text("".join(f"{n} {tmp_path / n}.wav\n" for n in names))
    (tmp_path / "text").write_text("".join(f"{n} a b\n" for n in names))
    (tmp_path / "speech_shape").write_text("".join(f"{n} 4000\n" for n in names))
    (tmp_path / "tokens.txt").write_text("\n".join(TOKENS) + "\n")
    (tmp_path / "config.yaml").write_text(
        """\
frontend_conf: {fs: 8k, n_fft: 256, win_length: 200, hop_length: 80, n_mels: 10}
specaug: specaug
specaug_conf: {time_mask_width_range: [0, 9]}
normalize: utterance_mvn
encoder: quant_rnn
encoder_conf: {num_layers: 1, hidden_size: 8, output_size: 8, use_projection: false}
decoder: quant_transducer
decoder_conf: {hidden_size: 8}
joint_net_conf: {joint_space_size: 8}
model: quant_espnet
model_conf: {report_cer: false, report_wer: false}
batch_type: unsorted
batch_size: 2
num_workers: 0
max_epoch: 1
"""
    )
    return tmp_path


def calibrate(corpus, *options):
    return main.main(
        [
            "calibrate",
            *("--config", str(corpus / "config.yaml"), "--token_type", "char"),
            *("--token_list", str(corpus / "tokens.txt")),
            *("--output_dir", str(corpus / "exp"), "--ngpu", "0"),
            *("--train_data_path_and_name_and_type", f"{corpus}/wav.scp,speech,sound"),
            *("--train_data_path_and_name_and_type", f"{corpus}/text,text,text"),
            *("--train_shape_file", f"{corpus}/speech_shape"),
            *("--output", str(corpus / "calibrated.pth"), *options),
        ]
    )


def test_calibrate_sets_every_activation_clip_from_data(corpus, capsys):
    options = ["--model_conf", "scheme=tailored", "--batches", "2", "--random", "true"]
    assert calibrate(corpus, *options) == 0
    state = torch.load(corpus / "calibrated.pth", weights_only=True)
    flags = {k: int(v) for k, v in state.items() if k.endswith("calibrated")}
    activations = {k for k in flags if k.rpartition(".")[0].endswith(("input", "hidden"))}
    assert activations and all(flags[k] > 0 for k in activations)
    first_input = next(k for k in state if "encoder" in k and k.endswith("input.clip_value"))
    assert 0.5 < float(state[first_input].squeeze()) < 20  # normalized features
    shown = capsys.readouterr().out
    assert "encoder.enc.0.nbrnn.l0.input" in shown and "saved" in shown
    assert not list(corpus.glob("*.part"))


def test_calibrate_starts_from_the_given_checkpoint(corpus, capsys):
    naive = ["--model_conf", "scheme=naive", "--batches", "1"]
    assert calibrate(corpus, *naive, "--seed", "1", "--random", "true") == 0
    assert "parameters are random: encoder.enc.0" in capsys.readouterr().out
    (corpus / "calibrated.pth").rename(corpus / "first.pth")
    again = ["--init_param", str(corpus / "first.pth"), "--seed", "2"]
    assert calibrate(corpus, *naive, *again) == 0
    first = torch.load(corpus / "first.pth", weights_only=True)
    second = torch.load(corpus / "calibrated.pth", weights_only=True)
    weights = [k for k in first if "weight" in k and "quantizers" not in k]
    assert weights and all(torch.equal(first[k], second[k]) for k in weights)


def test_calibrate_takes_parts_that_make_up_the_whole(corpus):
    tailored = ["--model_conf", "scheme=tailored", "--batches", "1"]
    assert calibrate(corpus, *tailored, "--random", "true") == 0
    whole = torch.load(corpus / "calibrated.pth", weights_only=True)
    torch.save({f"old.{k}": v for k, v in whole.items()}, corpus / "old.pth")
    parts = ("encoder", "decoder", "ctc", "joint_network")
    start = [f"{corpus}/old.pth:old.{part}:{part}" for part in parts]
    (corpus / "calibrated.pth").unlink()
    assert calibrate(corpus, *tailored, "--seed", "7", "--init_param", *start) == 0
    again = torch.load(corpus / "calibrated.pth", weights_only=True)
    assert all(torch.equal(whole[k], v) for k, v in again.items() if k.endswith("weight"))


@pytest.mark.parametrize(
    "options, message",
    [
        ([], "no --init_param: .*--random true"),
        (["--init_param", "none.pth"], "none.pth: no such file"),
        (["--init_param", "FOLDER"], "is a folder; give a checkpoint. In .* there are: part.pth"),
        (
            ["--init_param", "FOLDER/part.pth"],
            "[0-9]+ parameters of the model are not in it .*joint",
        ),
        (
            ["--init_param", "FOLDER/part.pth::ctc"],
            "does not fit ctc: .*not in the model: encoder.x",
        ),
        (
            ["--init_param", "FOLDER/part.pth:ecoder"],
            "nothing in it is chosen by 'ecoder'.*encoder",
        ),
        (
            ["--init_param", "FOLDER/part.pth:encoder:ecoder"],
            "goes to 'ecoder'.*its parts are: .*enco",
        ),
        (["--init_param", "FOLDER/part.pth:a:b:c:d"], "valid is FILE or FILE:FROM:TO:EXCLUDED"),
        (["--config", "FOLDER/none.yaml", "--random", "true"], "none.yaml"),
        (["--batches", "0"], "--batches 0: valid are 1 and above"),
    ],
)
def test_calibrate_refuses_what_would_leave_weights_random(corpus, capsys, options, message):
    start = {"encoder.x": torch.ones(2)} if "::ctc" in "".join(options) else {}
    if not start:
        assert calibrate(corpus, "--model_conf", "scheme=naive", "--random", "true") == 0
        whole = torch.load(corpus / "calibrated.pth", weights_only=True)
        start = {k: v for k, v in whole.items() if k.startswith(("encoder.", "decoder."))}
        (corpus / "calibrated.pth").unlink()
    torch.save(start, corpus / "part.pth")
    options = [option.replace("FOLDER", str(corpus)) for option in options]
    capsys.readouterr()
    assert calibrate(corpus, "--model_conf", "scheme=naive", *options) == 1
    error = capsys.readouterr().err
    assert re.search(message, error) and len(error.splitlines()) == 1
    assert not (corpus / "calibrated.pth").exists()


def test_calibrate_names_the_next_step_for_other_configurations(corpus, capsys):
    files = {"asr_model_file": "exp/a.pth"}, {"asr_train_config": "exp/config.yaml"}
    with zipfile.ZipFile(corpus / "packed.zip", "w") as archive:
        archive.writestr("meta.yaml", yaml.safe_dump({"files": files[0], "yaml_files": files[1]}))
    (corpus / "espnet3.yaml").write_text("trainer: {max_epochs: 1}\ndataset: {train: []}\n")
    (corpus / "list.yaml").write_text("- a\n")
    for name, message in (
        ("packed.zip", "is a packed model.*--config exp/config.yaml --init_param exp/a.pth"),
        ("espnet3.yaml", "is of ESPnet3.*InitialParameters"),
        ("list.yaml", "holds no options"),
    ):
        assert calibrate(corpus, "--config", str(corpus / name), "--random", "true") == 1
        assert re.search(message, capsys.readouterr().err)


def test_calibrate_refuses_data_that_lack_a_part(corpus, capsys):
    options = ["--config", str(corpus / "config.yaml"), "--token_list", str(corpus / "tokens.txt")]
    options += ["--random", "true", "--output", str(corpus / "calibrated.pth")]
    data = ["--train_data_path_and_name_and_type", f"{corpus}/wav.scp,speech,sound"]
    for given, message in (
        ([], "names nothing, and speech, text"),
        (data, "names speech, and text"),
    ):
        assert main.main(["calibrate", *options, *given]) == 1
        assert message in capsys.readouterr().err


def test_calibrate_refuses_a_float_model(corpus, capsys):
    assert calibrate(corpus, "--random", "true") == 1
    message = "has no quantizer to calibrate. Name a scheme: model_conf: scheme: tailored"
    assert message in capsys.readouterr().err
    assert not (corpus / "calibrated.pth").exists()
