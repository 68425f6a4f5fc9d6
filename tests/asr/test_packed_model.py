"""A packed model in a process that imports nothing but ESPnet."""

import argparse
import zipfile

import pytest
import torch
from espnet2.main_funcs.pack_funcs import pack
from espnet2.tasks.asr import ASRTask
from espnet2.utils.yaml_no_alias_safe_dump import yaml_no_alias_safe_dump
from interpreter import Interpreter, package_folder
from small_transducer import TOKENS

from espnet_quant4.quantizers.calibration import calibrating

CONFIG = {
    "token_list": TOKENS,
    "token_type": "char",
    "frontend": "default",
    "frontend_conf": {"fs": "8k", "n_fft": 256, "hop_length": 80, "n_mels": 10},
    "encoder": "quant_rnn",
    "encoder_conf": {"num_layers": 2, "hidden_size": 5, "output_size": 5, "use_projection": False},
    "decoder": "quant_transducer",
    "decoder_conf": {"hidden_size": 4},
    "joint_net_conf": {"joint_space_size": 6},
    "model": "quant_espnet",
    "model_conf": {"scheme": "tailored", "ctc_weight": 0.3},
}

RECOGNIZE = """
import sys, numpy, torch
from espnet2.bin.asr_inference import Speech2Text
recognizer = Speech2Text.from_pretrained(sys.argv[1], beam_size=2, ctc_weight=0.0)
generator = numpy.random.default_rng(0)
speech = generator.normal(size=8000).astype("float32")
text, tokens, ids, hypothesis = recognizer(speech)[0]
print("SCORE", float(hypothesis.score))
model = recognizer.asr_model
print("BITS", model.encoder.enc[0].nbrnn.quantizers["l0"]["weight_hh"].bits)
print("CLIP", float(model.encoder.enc[0].nbrnn.quantizers["l0"]["input"].clip()))
"""


@pytest.mark.slow
def test_from_pretrained_of_the_zip(tmp_path, monkeypatch):
    torch.manual_seed(0)
    args = argparse.Namespace(**ASRTask.get_default_config())
    for key, value in CONFIG.items():
        setattr(args, key, value)
    model = ASRTask.build_model(args)
    with calibrating(model.eval()), torch.no_grad():
        model.encode(torch.randn(2, 8000), torch.tensor([8000, 6000]))
        model.joint_network(torch.randn(1, 3, 1, 5).tanh(), torch.randn(1, 1, 2, 4).tanh())
        model.decoder(torch.tensor([[0, 3, 4]]))
    monkeypatch.chdir(tmp_path)
    torch.save(model.state_dict(), "model.pth")
    with open("config.yaml", "w", encoding="utf-8") as config:
        yaml_no_alias_safe_dump(vars(args), config)
    pack(
        files={"asr_model_file": "model.pth"},
        yaml_files={"asr_train_config": "config.yaml"},
        option=[],
        outpath="model.zip",
    )
    assert not any("scheme" in name for name in zipfile.ZipFile("model.zip").namelist())
    python = Interpreter(tmp_path / "venv", path=[package_folder()], outer=True)
    done = python.run("-c", RECOGNIZE, str(tmp_path / "model.zip"), check=False)
    assert done.returncode == 0, done.stderr
    found = dict(line.split(" ") for line in done.stdout.splitlines() if line.count(" ") == 1)
    assert found["BITS"] == "4"
    clip = model.encoder.enc[0].nbrnn.quantizers["l0"]["input"].clip().item()
    assert float(found["CLIP"]) == pytest.approx(clip)
    assert float(found["SCORE"]) < 0
