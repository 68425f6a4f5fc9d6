"""The command, on a folder as training leaves it."""

import json
import os

import pytest
import yaml
from report.test_experiment_page import write_data, write_experiment

from espnet_quant4.bin import main
from espnet_quant4.scheme import Scheme
from espnet_quant4.search import sensitivity

# Much of a model this small are biases, in float.
BUDGET = 0.4


def write_trained(at, scheme):
    """Write an experiment whose training data are there; return its folder."""
    write_data(at)
    write_experiment(at / "exp", scheme, at)
    config = at / "exp/config.yaml"
    options = yaml.safe_load(config.read_text(encoding="utf-8"))
    options["train_data_path_and_name_and_type"] = options["valid_data_path_and_name_and_type"]
    config.write_text(yaml.safe_dump(options), encoding="utf-8")
    return at / "exp"


def search(experiment, output, *options):
    command = ["search", str(experiment), "--budget", str(BUDGET), "--output", str(output)]
    return main.main([*command, "--widths", "2", "8", "--batches", "1", *options])


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    at = tmp_path_factory.mktemp("searched")
    experiment, output = write_trained(at, "tailored"), at / "conf/mixed.yaml"
    assert search(experiment, output) == 0
    return experiment, output


def test_a_scheme_within_the_budget_is_written(searched):
    _, output = searched
    text = output.read_text(encoding="utf-8")
    Scheme.load(yaml.safe_load(text))
    share = float(text.split(": ")[1].split()[0])
    assert text.startswith(f"# espnet-quant4 search --budget {BUDGET}: ") and 0 < share <= BUDGET
    (kept,) = json.loads(output.with_suffix(".losses.json").read_text(encoding="utf-8"))
    widths = {}
    for layer, tensor, bits, _ in kept["losses"]:
        widths.setdefault((layer, tensor), []).append(bits)
    assert widths["encoder.enc.0.nbrnn.l0", "weight_ih"] == [2, 4, 8]
    assert widths["joint_network.lin_out", "weight"] == [2, 8]


def test_what_was_measured_is_kept_until_the_model_changes(searched, monkeypatch, capsys):
    experiment, output = searched
    before = output.read_bytes()

    def refuse(*_):
        raise AssertionError("measured again")

    with monkeypatch.context() as patched:
        patched.setattr(sensitivity, "mean_loss", refuse)
        assert search(experiment, output) == 0
    assert output.read_bytes() == before
    os.utime(experiment / "valid.loss.ave.pth", (1, 1))
    monkeypatch.setattr(sensitivity, "mean_loss", refuse)
    with pytest.raises(AssertionError, match="measured again"):
        search(experiment, output)


def test_an_impossible_budget_is_refused_before_anything_is_measured(tmp_path, capsys, monkeypatch):
    experiment = write_trained(tmp_path, "tailored")

    def refuse(*_):
        raise AssertionError("measured")

    monkeypatch.setattr(sensitivity, "mean_loss", refuse)
    # Nor are the data wanted yet.
    (tmp_path / "text").unlink()
    assert search(experiment, tmp_path / "mixed.yaml", "--budget", "0.001") == 1
    said = capsys.readouterr().err
    assert "--budget 0.001: " in said and "allow more (--budget) or fewer bits (--widths)" in said
    least = float(said.split("all weights are ")[1].split()[0])
    assert search(experiment, tmp_path / "mixed.yaml", "--budget", str(0.99 * least)) == 1
    assert not (tmp_path / "mixed.losses.json").exists()


def test_losses_that_are_none_are_refused(tmp_path, capsys):
    experiment = write_trained(tmp_path, "tailored")
    for broken in ("{", "[]", '[{"of": 1}, 2]', '["of"]'):
        (tmp_path / "mixed.losses.json").write_text(broken)
        assert search(experiment, tmp_path / "mixed.yaml") == 1
        assert f"{tmp_path}/mixed.losses.json" in capsys.readouterr().err


def test_a_configuration_without_data_is_refused_by_name(tmp_path, capsys):
    experiment = write_trained(tmp_path, "tailored")
    config = experiment / "config.yaml"
    options = yaml.safe_load(config.read_text(encoding="utf-8"))
    options["train_data_path_and_name_and_type"] = []
    config.write_text(yaml.safe_dump(options), encoding="utf-8")
    assert search(experiment, tmp_path / "mixed.yaml") == 1
    said = capsys.readouterr().err
    assert f"{experiment}/config.yaml names no training data" in said and "dataset: train" in said


def test_what_is_missing_is_named(tmp_path, capsys):
    experiment = write_trained(tmp_path, "tailored")
    (tmp_path / "text").unlink()
    assert search(experiment, tmp_path / "mixed.yaml") == 1
    assert f"{tmp_path}/text: no such file" in capsys.readouterr().err
    assert not (tmp_path / "mixed.yaml").exists()


def test_data_that_cannot_be_read_are_named_with_no_option_of_other_commands(tmp_path, capsys):
    experiment = write_trained(tmp_path, "tailored")
    (tmp_path / "text").write_text("not an utterance\n", encoding="utf-8")
    assert search(experiment, tmp_path / "mixed.yaml") == 1
    said = capsys.readouterr().err
    assert f"{tmp_path}/text" in said and "where the training ran" in said
    assert "--data_path" not in said and "--batches" not in said


def test_a_float_model_is_refused(tmp_path, capsys):
    assert search(write_trained(tmp_path, "fp32"), tmp_path / "mixed.yaml") == 1
    assert "a search starts from a model that is quantized" in capsys.readouterr().err
