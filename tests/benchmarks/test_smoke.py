"""Every benchmark runs, in miniature and mostly in this process; the times it measures mean nothing."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
import yaml
from benchmarks.scripts import NAMES, load
from int4.small_recognizer import write_recognizer
from interpreter import REPOSITORY

from espnet_quant4.bin import main
from espnet_quant4.int4.lstm import Int4LSTM
from espnet_quant4.nn import QuantLSTM
from espnet_quant4.quantizers.calibration import calibrating
from espnet_quant4.scheme import apply_scheme

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def threads():
    """Benchmarks choose the number of threads of their process, which here is that of all tests."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder with a small quantized system, its INT4 file, and two recordings."""
    folder = tmp_path_factory.mktemp("small")
    system = folder / "asr_tailored"
    system.mkdir()
    config, model = write_recognizer(system)
    options = ("--asr_train_config", config, "--asr_model_file", model)
    output = system / "model.int4"
    assert main.main(["convert", *map(str, options), "--output", str(output)]) == 0
    data = folder / "data"
    data.mkdir()
    noise = np.random.default_rng(1)
    for name in ("one", "two"):
        soundfile.write(data / f"{name}.wav", 0.3 * noise.standard_normal(6000), 8000)
    table = "".join(f"{name} {data / name}.wav\n" for name in ("one", "two"))
    (data / "wav.scp").write_text(table)
    return folder


def smoke_equality(small, output, capsys):
    system, data = str(small / "asr_tailored"), str(small / "data")
    options = ["--model", "model.pth", "--beam_size", "2", "--output", str(output)]
    assert load("equality").main(["--system", system, "--data", data, *options]) == 0
    found = json.loads(output.read_text())
    # 2 layers of 2 directions of 20 cells, for each step.
    assert found["codes"] > 0 and found["codes"] % (2 * 2 * 20) == 0
    assert found["not_at_a_tie"] == 0 and found["utterances"] == 2
    assert "0 of 2 texts differ" in capsys.readouterr().out


def smoke_rtf(small, output, capsys):
    options = ["--int4", str(small / "asr_tailored/model.int4"), "--data", str(small / "data")]
    options += ["--model", "model.pth", "--output", str(output)]
    assert load("rtf").main(["--fp32", str(small / "asr_tailored"), *options]) == 0
    rows = json.loads(output.read_text())
    assert [row["candidate"] for row in rows] == ["fp32", "int4"]
    for row in rows:
        parts = [row[part] for part in ("features", "encoder", "search")]
        assert min(parts) > 0 and math.isclose(sum(parts), row["all"])


def smoke_lstm(small, output, capsys):
    assert load("lstm").main(["--smoke", "--threads", "1", "--output", str(output)]) == 0
    rows = json.loads(output.read_text())
    assert {"shape", "threads", "candidate", "median_s"} <= set(rows[0])
    assert {"int4", "emulated", "torch_float32", "torch_int8"} <= {r["candidate"] for r in rows}
    assert all(row["median_s"] > 0 for row in rows)
    assert {row["shape"] for row in rows} == {"a1", "c8"}
    shown = capsys.readouterr().out
    # What is not installed is named, with how to get it.
    for name in ("onnxruntime_int8", "openvino_float32"):
        assert name in shown
    assert "limits" in shown


def smoke_train_step(small, output, capsys):
    assert load("train_step").main(["--smoke", "--output", str(output)]) == 0
    rows = json.loads(output.read_text())
    assert {"shape", "threads", "candidate", "median_s"} <= set(rows[0])
    # What the tests' own packages hold; Brevitas comes with the benchmark.
    own = {"nn.LSTM", "nn.LSTM packed", "fused", "fused lengths", "reference", "fms_mo"}
    assert own <= {row["candidate"] for row in rows}
    assert all(row["median_s"] > 0 for row in rows)
    shown = capsys.readouterr().out
    assert "brevitas" in shown and "target fused / nn.LSTM at most 0.8" in shown


def smoke_lfmmi(small, output, capsys):
    options = ["--pdfs", "40", "--batch", "2", "--frames", "20", "--repeats", "1"]
    assert load("lfmmi").main(options) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["states"] == 40 and result["loss_both"] > result["lattices"] > 0


def smoke_published_sizes(small, output, capsys):
    options = ["--models", "hybrid", "--systems", "tailored", "--output", str(output)]
    options += ["--steps", "1", "--seconds", "0.5", "--utterances", "2"]
    # In a process of its own, whose largest resident set it reads.
    script = [sys.executable, "benchmarks/published_sizes.py"]
    done = subprocess.run([*script, *options], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(output.read_text())
    assert row["system"] == "tailored" and row["parameters"] == pytest.approx(31e6, rel=0.005)
    # Weights, gradients and the optimizer's two moments.
    assert row["grown_mb"] > 16 * 31.0
    assert row["median_s"] > 0 and row["loss"] > 0
    assert "step 1/1" in done.stderr and "times_fp32" in done.stdout


def smoke_startup(small, output, capsys):
    assert load("startup").main(["--runs", "2"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["runs"] == 2
    for bytecode in ("with_byte_code", "without_byte_code"):
        numbers = result[bytecode]
        assert numbers["added_q1"] <= numbers["added"] <= numbers["added_q3"]


@pytest.mark.parametrize("name", NAMES)
def test_runs(name, small, tmp_path, capsys):
    # A benchmark without a function above has no smoke run: write one.
    globals()[f"smoke_{name}"](small, tmp_path / f"{name}.json", capsys)


def test_published_sizes_of_every_system(tmp_path, monkeypatch):
    sizes = load("published_sizes")
    configs = {}
    for model, path in sizes.CONFIGS.items():
        conf = yaml.safe_load(path.read_text())
        conf["encoder_conf"].update(hidden_size=8, output_size=8, num_layers=1)
        if model == "rnnt":
            conf["decoder_conf"].update(hidden_size=8, embed_size=4)
            conf["joint_net_conf"].update(joint_space_size=8)
        else:
            conf["model_conf"].update(bottleneck_size=8)
        configs[model] = tmp_path / f"{model}.yaml"
        configs[model].write_text(yaml.safe_dump(conf))
    monkeypatch.setattr(sizes, "CONFIGS", configs)
    monkeypatch.setattr(sizes, "STATES", 50)
    args = sizes.get_parser().parse_args(["--steps", "1", "--seconds", "0.2", "--utterances", "2"])
    for model in configs:
        rows = {system: sizes.measure(model, system, args) for system in sizes.SYSTEMS}
        for row in rows.values():
            assert row["median_s"] > 0 and math.isfinite(row["loss"])
        # Quantizers' clips are no parameters of the network.
        assert len({rows[name]["parameters"] for name in ("fp32", "naive", "tailored")}) == 1


@pytest.mark.parametrize("scheme", ["naive", "tailored"])
def test_equality_tells_a_wrong_code(scheme, monkeypatch):
    equality = load("equality")
    torch.manual_seed(0)
    lstm = QuantLSTM(6, 8, 2, bidirectional=True)
    apply_scheme(lstm, scheme)
    with torch.no_grad(), calibrating(lstm.eval()):
        lstm(torch.randn(30, 4, 6))
    x = torch.randn(40, 1, 6)

    def compare():
        totals = {"codes": 0, "different": 0, "not_at_a_tie": 0, "farthest": 0.0}
        with torch.no_grad():
            equality.compare_codes(lstm, x, totals)
        assert totals["codes"] == 40 * 2 * 2 * 8
        return totals["not_at_a_tie"]

    assert compare() == 0
    original = Int4LSTM.from_quantized.__func__

    def wrong(cls, source):
        built = original(cls, source)
        built.bias_l0_reverse += 0.1
        return built

    monkeypatch.setattr(Int4LSTM, "from_quantized", classmethod(wrong))
    assert compare() > 0


def test_equality_wants_a_quantized_system():
    model = torch.nn.Module()
    model.encoder = torch.nn.LSTM(4, 4)
    with pytest.raises(ValueError, match="exp/asr_fp32: of 0 LSTMs.*exp/asr_tailored"):
        load("equality").encoder_stacks(model, "exp/asr_fp32")
