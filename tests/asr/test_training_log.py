"""What a training by ESPnet is asked, told and measured: its scheme, its log, its configuration."""

import logging
import math
import sys
from typing import ClassVar

import pytest
import torch
import yaml
from espnet2.tasks.asr import ASRTask
from espnet2.tasks.lm import LMTask
from hybrid.small_hybrid import training_options, write_corpus
from small_asr import asr_options, write_asr_corpus

from espnet_quant4 import training
from espnet_quant4.hybrid.task import HybridTask
from espnet_quant4.nn import QuantLinear
from espnet_quant4.nn.scheme_record import check_resumed_scheme, recorded_scheme
from espnet_quant4.nn.watch import Watch, describe_quantization, table_of_costs
from espnet_quant4.quantizers.calibration import calibrating
from espnet_quant4.scheme import Scheme, SchemeError, apply_scheme

INT8 = {
    "lstm": {
        "weight_ih": {"quantizer": "max", "bits": 8},
        "weight_hh": {"quantizer": "max", "bits": 8},
        "input": {"quantizer": "max", "bits": 8},
        "hidden": {"quantizer": "max", "bits": 8},
    },
    "linear": {
        "weight": {"quantizer": "max", "bits": 8},
        "input": {"quantizer": "max", "bits": 8},
    },
    "embedding": {"weight": {"quantizer": "max", "bits": 8}},
}
RESUME = ["--resume", "true"]


class Tensorboard:
    """Stands in for ``torch.utils.tensorboard``: keeps what is drawn, by the folder."""

    drawn: ClassVar[dict] = {}

    class SummaryWriter:
        def __init__(self, folder):
            self.drawn = Tensorboard.drawn.setdefault(folder, [])

        def add_scalar(self, tag, value, step):
            self.drawn.append((tag, value, step))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def __getattr__(self, name):
            return lambda *args, **kwargs: None


def train(task, corpus, output, scheme, *options, epochs=1):
    write = write_asr_corpus if task is ASRTask else write_hybrid_corpus
    write(corpus, scheme, max_epoch=epochs, batch_size=4)
    command = (asr_options if task is ASRTask else training_options)(corpus, output)
    task.main(cmd=[*command, *options])


def write_hybrid_corpus(folder, scheme, **settings):
    write_corpus(folder, model_conf={"scheme": scheme}, **settings)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return corpus and folder of a training with each scheme, by the task and the scheme's name."""
    found = {}
    for task in (ASRTask, HybridTask):
        for name, scheme in {"tailored": "tailored", "naive": "naive", "float": None}.items():
            folder = tmp_path_factory.mktemp(name)
            train(task, folder, folder / "exp", scheme)
            found[task, name] = folder
    return found


@pytest.mark.parametrize("task", [ASRTask, HybridTask])
@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("tailored", "naive", "trained with scheme tailored, .* to have scheme naive"),
        (
            "naive",
            INT8,
            r"trained with scheme naive, .* a scheme of your own \(\d+ tensors, 8 bits",
        ),
        ("float", "tailored", r"trained with no scheme \(float\), .* to have scheme tailored"),
        ("naive", None, r"trained with scheme naive, .* to have no scheme \(float\)"),
    ],
)
def test_resuming_with_another_scheme_is_refused(task, before, after, words, trained):
    folder = trained[task, before]
    saved = (folder / "exp" / "config.yaml").read_bytes()
    with pytest.raises(SchemeError, match=words) as caught:
        train(task, folder, folder / "exp", after, *RESUME, epochs=2)
    assert "checkpoint.pth" in str(caught.value) and "--init_param" in str(caught.value)
    # A training that is refused has changed nothing.
    assert (folder / "exp" / "config.yaml").read_bytes() == saved
    assert not (folder / "exp" / "2epoch.pth").exists()


@pytest.mark.parametrize("task", [ASRTask, HybridTask])
@pytest.mark.parametrize("name", ["tailored", "float"])
def test_resuming_with_the_same_scheme_goes_on(task, name, trained, tmp_path):
    folder = trained[task, name]
    scheme = None if name == "float" else name
    train(task, folder, folder / "exp", scheme, *RESUME, epochs=2)
    assert (folder / "exp" / "2epoch.pth").is_file()
    # Averaging adds up what is in the files, and finds nothing but tensors.
    average = torch.load(folder / "exp" / "valid.loss.ave.pth", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in average.values())
    # Another scheme may start from a checkpoint's parameters, and from an average.
    for start in ("2epoch.pth", "valid.loss.ave.pth"):
        start = ["--init_param", str(folder / "exp" / start), "--ignore_init_mismatch", "true"]
        train(task, folder, tmp_path / "other", "naive", *start)


def test_checkpoints_without_record_are_told_by_their_tensors(trained, tmp_path):
    folder = trained[ASRTask, "naive"]
    content = torch.load(folder / "exp" / "checkpoint.pth", weights_only=False)
    assert recorded_scheme(content["model"])
    content["model"] = dict(content["model"])
    torch.save(content, tmp_path / "old.pth")
    model, _ = ASRTask.build_model_from_file(folder / "exp" / "config.yaml")
    check_resumed_scheme(model, tmp_path / "old.pth")
    content["model"] = {k: v for k, v in content["model"].items() if "quantizers" not in k}
    torch.save(content, tmp_path / "fp32.pth")
    with pytest.raises(SchemeError, match=r"no scheme \(float\)"):
        check_resumed_scheme(model, tmp_path / "fp32.pth")
    # What is no checkpoint at all is ESPnet's to refuse.
    (tmp_path / "broken.pth").write_bytes(b"half")
    check_resumed_scheme(model, tmp_path / "broken.pth")


def test_options_that_act_before_training_are_no_other_scheme(trained):
    folder = trained[ASRTask, "naive"]
    content = Scheme.load("naive").to_dict()
    content["lstm"]["weight_ih"]["granularity"] = "tensor"
    train(ASRTask, folder, folder / "exp", content, *RESUME, epochs=1)


def test_start_of_training_says_what_is_quantized(trained, caplog, tmp_path):
    with caplog.at_level(logging.INFO):
        train(ASRTask, tmp_path, tmp_path / "exp", "tailored")
    (text,) = [r.getMessage() for r in caplog.records if "quantization: " in r.getMessage()]
    model, _ = ASRTask.build_model_from_file(tmp_path / "exp" / "config.yaml")
    assert text == describe_quantization(model)
    quantizers = [m for m in model.modules() if hasattr(m, "max_code")]
    in_4 = sum(q.bits == 4 and q.role == "weight" for q in quantizers)
    assert in_4 > 3 and f"{in_4} weights in 4 bits" in text
    assert "encoder.enc.0.nbrnn: l0.weight_ih sawb+ 4" in text
    assert "biases" in text


def test_float_models_are_described_as_such():
    linear = QuantLinear(3, 4)
    assert "nothing, for the model has no scheme; in float: weights of 12 values" in (
        describe_quantization(linear)
    )
    assert describe_quantization(torch.nn.Linear(3, 4)) is None


def test_each_epoch_says_what_quantization_costs(caplog, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", Tensorboard())
    options = ["--use_tensorboard", "true"]
    with caplog.at_level(logging.INFO):
        train(ASRTask, tmp_path, tmp_path / "exp", "tailored", *options, epochs=2)
    tables = [r.getMessage() for r in caplog.records if "epoch: quantization on" in r.getMessage()]
    assert [table[0] for table in tables] == ["1", "2"]
    model, _ = ASRTask.build_model_from_file(
        tmp_path / "exp" / "config.yaml", tmp_path / "exp" / "2epoch.pth"
    )
    rows = {line.split()[0]: line.split()[1:] for line in tables[1].splitlines()[2:]}
    names = {
        n.replace(".quantizers", "") for n, m in model.named_modules() if hasattr(m, "max_code")
    }
    assert rows.keys() == names
    clip = model.encoder.enc[0].nbrnn.quantizers["l0"]["input"].clip().item()
    bits, shown, _, snr = rows["encoder.enc.0.nbrnn.l0.input"]
    assert int(bits) == 8 and float(shown) == pytest.approx(clip, rel=1e-3) and float(snr) > 20
    # ESPnet's own statistics have the worst of it, and go to its reporter.
    reporter = torch.load(tmp_path / "exp" / "checkpoint.pth", weights_only=False)["reporter"]
    stats = reporter["stats"][2]["valid"]
    worst = min(float(row[3]) for row in rows.values())
    assert stats[training.WORST_SNR] == pytest.approx(worst, abs=0.06)
    most = max(float(row[2].rstrip("%")) for row in rows.values())
    assert stats[training.MOST_CUT_OFF] == pytest.approx(most, abs=0.006)
    assert math.isfinite(stats["loss"])
    line = next(r.getMessage() for r in caplog.records if "2epoch results" in r.getMessage())
    assert training.WORST_SNR in line and "enc.0" not in line
    drawn = Tensorboard.drawn[str(tmp_path / "exp" / "tensorboard" / "quantization")]
    assert [e for e in drawn if e[0] == "quant/encoder.enc.0.nbrnn.l0.input_snr_db"] == [
        ("quant/encoder.enc.0.nbrnn.l0.input_snr_db", pytest.approx(float(snr), abs=40), 1),
        ("quant/encoder.enc.0.nbrnn.l0.input_snr_db", pytest.approx(float(snr), abs=0.06), 2),
    ]
    assert len(drawn) >= 2 * (3 * len(names) - 3)


def test_a_constant_that_cuts_off_much_is_warned_of_without_calibration(caplog, tmp_path):
    constant = {"quantizer": "fix", "bits": 4, "clip": 0.01}
    scheme = {"lstm": {"hidden": {**constant, "allow_clipping": True}, "input": constant}}
    train(ASRTask, tmp_path, tmp_path / "exp", scheme)
    (text,) = [r.getMessage() for r in caplog.records if "constant clips" in r.getMessage()]
    assert "encoder.enc.0.nbrnn.l0.input: " in text and "% beyond 0.01" in text
    assert "hidden" not in text


def test_training_of_a_float_model_is_measured_by_nothing(trained):
    reporter = torch.load(trained[ASRTask, "float"] / "exp" / "checkpoint.pth", weights_only=False)[
        "reporter"
    ]
    assert not [key for key in reporter["stats"][1]["valid"] if key.startswith("quant")]


@pytest.mark.parametrize("bidirectional", [False, True])
def test_costs_are_those_of_the_definition(bidirectional):
    from espnet_quant4.int4 import use_int4
    from espnet_quant4.nn import QuantLSTM

    torch.manual_seed(0)
    lstm = QuantLSTM(4, 5, 2, bidirectional=bidirectional)
    apply_scheme(lstm, {"lstm": INT8["lstm"]})
    x = torch.randn(20, 3, 4)
    with calibrating(lstm):
        lstm(0.5 * x)
    use_int4(lstm)
    lstm.eval()
    watch = Watch(lstm, batches=1)
    lengths = torch.tensor([20, 9, 1])
    with torch.no_grad(), watch.activations():
        output, _ = lstm(x, lengths=lengths)
        lstm(100 * x)  # not watched any more
    costs = {cost.name: cost for cost in watch.costs()}
    names = {
        n.removeprefix("quantizers.") for n, m in lstm.named_modules() if hasattr(m, "max_code")
    }
    assert costs.keys() == names
    valid = torch.arange(20).unsqueeze(1) < lengths
    quantizer = lstm.quantizers["l0"]["input"]
    seen = x[valid]
    noise = (seen - quantizer.quantize(seen)).double().square().sum()
    cost = costs["l0.input"]
    expected = 10 * math.log10(seen.double().square().sum() / noise)
    assert cost.snr == pytest.approx(expected, rel=1e-6)
    reach = quantizer.clip() * (1 + 0.5 / quantizer.max_code)
    outside = (seen.abs() > reach).double().mean().item()
    assert cost.cut_off == pytest.approx(outside) and outside > 0.01
    last = lstm.quantizers["l1"]["hidden"]
    states = output[..., :5][valid]
    noise = (states - last.quantize(states)).double().square().sum()
    assert costs["l1.hidden"].snr == pytest.approx(
        10 * math.log10(states.double().square().sum() / noise), abs=0.1
    )
    weight = lstm.weight_hh_l1.detach()
    noise = (weight - lstm.quantizers["l1"]["weight_hh"].quantize(weight)).double().square().sum()
    assert costs["l1.weight_hh"].snr == pytest.approx(
        10 * math.log10(weight.double().square().sum() / noise), rel=1e-5
    )
    assert table_of_costs(list(costs.values())).count("\n") == len(costs)


def test_saved_configuration_names_the_package(trained):
    for name in ("tailored", "float"):
        text = (trained[ASRTask, name] / "exp" / "config.yaml").read_text(encoding="utf-8")
        assert text.startswith(training.HINT) and text.count("ESPNET_QUANT4_DISABLE") == 1
        assert "espnet_quant4" in training.HINT
        assert yaml.safe_load(text)["encoder"] == "quant_rnn"
        # ESPnet reads it as it reads its own.
        ASRTask.build_model_from_file(trained[ASRTask, name] / "exp" / "config.yaml")


def test_other_configurations_have_no_such_comment(tmp_path):
    (tmp_path / "tokens").write_text("<blank>\n<unk>\na\n<sos/eos>\n")
    for lm in ("seq_rnn", "quant_seq_rnn"):
        output = tmp_path / lm
        options = ["--lm", lm, "--token_list", str(tmp_path / "tokens"), "--dry_run", "true"]
        data = ["--use_preprocessor", "false", "--use_tensorboard", "false"]
        for part in ("train", "valid"):
            data += [f"--{part}_data_path_and_name_and_type", f"{tmp_path}/tokens,text,text"]
            data += [f"--{part}_shape_file", str(tmp_path / "tokens")]
        LMTask.main(cmd=[*options, *data, "--output_dir", str(output), "--ngpu", "0"])
        text = (output / "config.yaml").read_text(encoding="utf-8")
        assert ("espnet_quant4" in text) == (lm == "quant_seq_rnn")
