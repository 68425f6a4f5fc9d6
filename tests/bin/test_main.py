"""The console command and its sub-commands."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

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
    assert calibrate(corpus, "--model_conf", "scheme=tailored", "--batches", "2") == 0
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
    assert calibrate(corpus, "--model_conf", "scheme=naive", "--batches", "1", "--seed", "1") == 0
    (corpus / "calibrated.pth").rename(corpus / "first.pth")
    again = ["--init_param", str(corpus / "first.pth"), "--seed", "2"]
    assert calibrate(corpus, "--model_conf", "scheme=naive", "--batches", "1", *again) == 0
    first = torch.load(corpus / "first.pth", weights_only=True)
    second = torch.load(corpus / "calibrated.pth", weights_only=True)
    weights = [k for k in first if "weight" in k and "quantizers" not in k]
    assert weights and all(torch.equal(first[k], second[k]) for k in weights)


def test_calibrate_refuses_a_float_model(corpus):
    with pytest.raises(SystemExit, match="has no quantizer to calibrate.*scheme=tailored"):
        calibrate(corpus)
    assert not (corpus / "calibrated.pth").exists()


def test_calibrate_refuses_no_batches(corpus):
    with pytest.raises(SystemExit, match="--batches 0: valid are 1 and above"):
        calibrate(corpus, "--model_conf", "scheme=tailored", "--batches", "0")
