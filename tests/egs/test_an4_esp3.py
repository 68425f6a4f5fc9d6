"""AN4's recipe for ESPnet3: its settings, and every stage on a made-up corpus, tiny."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
import yaml
from egs.look_alike import write_corpus
from egs.recipes import EGS, read_table
from tracked import copy_tracked

from espnet_quant4.bin import main
from espnet_quant4.scheme import Scheme

RECIPE = EGS / "an4" / "esp3"
ASR1 = EGS / "an4" / "asr1"
ASTERISK = EGS / "asterisk_en" / "asr1"


def is_installed(name):
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


NEEDED = ("espnet3", "lightning", "distributed", "dask_jobqueue", "jiwer", "google.protobuf")
MISSING = [name for name in NEEDED if not is_installed(name)]
runs_espnet3 = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")


def merge(base, changes):
    if not (isinstance(base, dict) and isinstance(changes, dict)):
        return changes
    return {**base, **{key: merge(base.get(key), value) for key, value in changes.items()}}


def read_configuration(name):
    conf = yaml.safe_load((RECIPE / "conf" / f"{name}.yaml").read_text())
    merged = {}
    for parent in conf.pop("defaults", []):
        merged = merge(merged, read_configuration(parent))
    return merge(merged, conf)


@pytest.mark.parametrize("name", ["ctc", "fp32", "qat"])
def test_network_is_that_of_the_asterisk_recipe(name):
    theirs = yaml.safe_load((ASTERISK / "conf" / f"train_asr_{name}.yaml").read_text())
    ours = read_configuration(f"training_{name}")
    model = ours["model"]
    assert model.get("decoder") == theirs.get("decoder")
    assert model["normalize"] == "global_mvn"  # the driver names it
    blocks = ["specaug", "specaug_conf", "encoder", "encoder_conf"]
    if model["decoder"] is not None:
        blocks += ["decoder_conf", "joint_net_conf"]
    assert {key: model[key] for key in blocks} == {key: theirs[key] for key in blocks}
    # The float models name no scheme, and CTC no loss of a transducer.
    given = {"scheme": ours["scheme"], "transducer_loss": "torchaudio", **theirs["model_conf"]}
    assert {**model["model_conf"], "scheme": ours["scheme"]} == given
    assert model["model_conf"]["scheme"] == "${scheme}"
    assert ours["trainer"]["gradient_clip_val"] == theirs["grad_clip"]
    assert ours["seed"] == theirs["seed"]


@pytest.mark.parametrize(
    "name, rate, warmup, epochs, averaged, batches",
    [
        ("ctc", 0.002, 300, 16, 5, None),
        ("fp32", 0.001, 150, 7, 5, None),
        ("qat", 0.0005, 50, 4, 2, 60),
    ],
)
def test_training_is_as_long_as_it_says(name, rate, warmup, epochs, averaged, batches):
    ours = read_configuration(f"training_{name}")
    assert ours["optimizer"] == {"lr": rate, "weight_decay": 0.000001}
    assert ours["scheduler"] == {"warmup_steps": warmup}
    assert ours["best_model_criterion"] == [["valid/loss", averaged, "min"]]
    # ESPnet3's average leaves the last epoch out.
    assert ours["trainer"]["max_epochs"] == epochs + 1
    factory = ours["dataloader"]["train"]["iter_factory"]
    assert factory["num_iters_per_epoch"] == batches
    # 30 s of waveforms.
    expected = {"type": "numel", "batch_bins": 480000}
    expected.update(sort_in_batch="descending", sort_batch="descending")
    assert {key: factory["batches"][key] for key in expected} == expected


def test_trainings_of_one_model_differ_in_nothing_that_a_checkpoint_is_of():
    models = [read_configuration(f"training_{name}")["model"] for name in ("ctc", "fp32", "qat")]
    fs16k = {"fs": "16k", "n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 40}
    assert models[0]["frontend_conf"] == fs16k
    for key in ("frontend", "frontend_conf", "encoder", "encoder_conf"):
        assert models[0][key] == models[1][key] == models[2][key]
    for key in ("decoder", "decoder_conf", "joint_net_conf"):
        assert models[1][key] == models[2][key]


def test_decoding_is_that_of_asr1():
    theirs = yaml.safe_load((ASR1 / "conf" / "decode_asr.yaml").read_text())
    for name, training in (("inference", "fp32"), ("inference_quantized", "qat")):
        model = read_configuration(name)["model"]
        assert {key: model[key] for key in theirs} == theirs
        # ESPnet3 puts the number of averaged epochs into the file's name.
        ((_, number, _),) = read_configuration(f"training_{training}")["best_model_criterion"]
        assert model["asr_model_file"].endswith(f"/valid.loss.ave_{number}best.pth")


# No augmentation and few steps; the average is the first epoch.
TINY = {
    "create_dataset": {"speed_factors": [1.0]},
    "model": {
        "specaug": None,
        "encoder_conf": {"num_layers": 2, "hidden_size": 8, "output_size": 8, "dropout": 0.0},
        "decoder_conf": {"hidden_size": 8, "dropout": 0.0, "dropout_embed": 0.0},
        "joint_net_conf": {"joint_space_size": 8},
    },
    "best_model_criterion": [["valid/loss", 1, "min"]],
    "dataloader": {
        "train": {"iter_factory": {"num_workers": 0, "num_iters_per_epoch": 3}},
        "valid": {"iter_factory": {"num_workers": 0}},
    },
    "trainer": {"max_epochs": 2, "accelerator": "cpu"},
}
FP32, QAT = "exp/asr_fp32", "exp/asr_tailored"
AVERAGE = "valid.loss.ave_1best.pth"
RATE = 1e-4
STEPS = 3


def write_tiny(recipe, corpus):
    """Write configurations that change the recipe's own to a model that trains in a moment."""
    tiny = merge(TINY, {"create_dataset": {"an4": str(corpus)}})
    # Every part costs a worker's start.
    (decoded,) = (
        t for t in read_configuration("inference")["dataset"]["test"] if t["name"] == "test"
    )
    configurations = {
        "tiny": tiny,
        "tiny_fp32": {"defaults": ["training_fp32", "tiny"], "initial_parameters": None},
        "tiny_qat": {
            "defaults": ["training_qat", "tiny"],
            "initial_parameters": f"{FP32}/{AVERAGE}",
            "optimizer": {"lr": RATE},
            "scheduler": {"warmup_steps": 1},
        },
        "tiny_inference": {
            "defaults": ["inference_quantized"],
            "model": {"asr_model_file": "${exp_dir}/" + AVERAGE, "beam_size": 1},
            "dataset": {"test": [decoded]},
            "parallel": {"n_workers": 1},
        },
    }
    for name, conf in configurations.items():
        (recipe / "conf" / f"{name}.yaml").write_text(yaml.safe_dump(conf))


def run(recipe, stages, training, **configurations):
    names = {"training": training, **configurations}
    options = [f"--{role}_config=conf/{name}.yaml" for role, name in names.items()]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ESPNET_QUANT4")}
    done = subprocess.run(
        [sys.executable, "run.py", "--stages", *stages, *options],
        cwd=recipe,
        capture_output=True,
        text=True,
        env={**environment, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A copy of the recipe in which every stage has run."""
    root = tmp_path_factory.mktemp("esp3")
    copy_tracked(root, "egs/common", "egs/an4/asr1/local", "egs/an4/esp3")
    write_corpus(root / "corpus", utterances_a_speaker=3)
    recipe = root / "egs/an4/esp3"
    write_tiny(recipe, root / "corpus")
    run(recipe, ["create_dataset", "train_tokenizer", "collect_stats", "train"], "tiny_fp32")
    run(
        recipe,
        ["train", "infer", "measure", "pack_model"],
        "tiny_qat",
        inference="tiny_inference",
        metrics="metrics",
        publication="publication",
    )
    return recipe


@runs_espnet3
@pytest.mark.slow
def test_every_word_is_scored(recipe):
    rates = json.loads((recipe / QAT / "inference_int4/metrics.json").read_text())
    texts = read_table(recipe / "data/test/text")
    folder = recipe / QAT / "inference_int4/test"
    assert list(read_table(folder / "text.scp")) == list(texts)
    summary = re.search(r"WER: ([\d.]+) \((.*)\)", (folder / "wer_alignment").read_text())
    counts = {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", summary[2])}
    words = counts["hits"] + counts["substitutions"] + counts["deletions"]
    assert words == sum(len(text.split()) for text in texts.values())
    assert rates["espnet3.systems.esp2_asr.metrics.wer.WER"]["test"]["WER"] == float(summary[1])


@runs_espnet3
@pytest.mark.slow
def test_quantization_aware_training_starts_from_the_float_model(recipe):
    start = torch.load(recipe / FP32 / AVERAGE, weights_only=True)
    end = torch.load(recipe / QAT / AVERAGE, weights_only=True)
    assert not any("quantizers" in key for key in start)
    assert set(start) == {key for key in end if "quantizers" not in key}
    weights = [key for key in start if key.endswith(("weight_hh_l0", "lin_out.weight"))]
    assert weights
    for key in weights:
        difference = (end[key] - start[key]).abs().max()
        # A step of Adam's moves a weight by no more than a few times the rate.
        assert 0 < difference <= 4 * RATE * STEPS < start[key].std() / 10, key


@runs_espnet3
@pytest.mark.slow
def test_stages_in_one_command_keep_the_normalization(recipe):
    for system in (FP32, QAT):
        saved = yaml.safe_load((recipe / system / "config.yaml").read_text())
        assert saved["normalize"] == "global_mvn"
    assert saved["model_conf"]["scheme"]["lstm"]["weight_ih"]["bits"] == 4


@runs_espnet3
@pytest.mark.slow
def test_packed_model_is_quantized_wherever_it_lies(recipe, tmp_path, monkeypatch):
    from espnet3.publication.inference_model import InferenceModel

    from espnet_quant4.nn import QuantLSTM
    from espnet_quant4.quantizers import Quantizer

    decoded = read_table(recipe / QAT / "inference_int4/test/text.scp")
    name, audio = next(iter(read_table(recipe / "dump/raw/test/wav.scp").items()))
    packed = shutil.move(recipe / QAT / "model_pack", tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    recognizer = InferenceModel.from_packed(packed, device="cpu")
    model = recognizer.model.asr_model
    quantizers = [m for m in model.modules() if isinstance(m, Quantizer)]
    assert quantizers and all(q.is_calibrated for q in quantizers if q.role == "activation")
    (lstm, *_) = (m for m in model.encoder.modules() if isinstance(m, QuantLSTM))
    codes = lstm.quantizer("l0", "weight_hh").codes(lstm.weight_hh_l0)
    assert codes.min() >= -7 and codes.max() <= 7 and len(codes.unique()) > 8
    assert recognizer(audio)["text"] == decoded[name]


def command(*words):
    return main.main([*map(str, words), "--model", AVERAGE, "--batches", "1"])


@runs_espnet3
@pytest.mark.slow
def test_report_and_search_read_what_espnet3_wrote(recipe, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(recipe)
    assert command("report", QAT) == 0
    page = (recipe / QAT / "report.html").read_text(encoding="utf-8")
    assert "Epoch 2: train loss" in page and "No finished epoch" not in page
    assert "Activations of 4 utterances of dataset.valid of config.yaml" in page
    assert "inference_int4/test" in page
    scheme = tmp_path / "mixed.yaml"
    assert command("search", QAT, "--budget", 0.5, "--output", scheme, "--widths", 4, 8) == 0
    Scheme.load(yaml.safe_load(scheme.read_text(encoding="utf-8")))
