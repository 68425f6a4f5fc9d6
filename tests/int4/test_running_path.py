"""Which path runs, and why, is said: by a function, once a process in the log, and by info."""

import logging

import pytest
import torch
from small_transducer import SCHEME, build_transducer, random_batch

from espnet_quant4.int4 import convert, describe_path, runner, running_path, use_int4
from espnet_quant4.kernels import library
from espnet_quant4.nn import QuantLinear
from espnet_quant4.quantizers.calibration import calibrating


@pytest.fixture
def model():
    built, batch = build_transducer(SCHEME), random_batch()
    with calibrating(built), torch.no_grad():
        built(**batch)
    with torch.no_grad():
        built.eval()(**batch)  # sets learned clips of weights
    return built


@pytest.fixture
def said(monkeypatch, caplog):
    """Return what is logged by an evaluation of a model in a process that has logged nothing yet."""

    def evaluate(model, gradients=False):
        monkeypatch.setattr(runner, "_said", set())
        caplog.clear()
        with torch.set_grad_enabled(gradients), caplog.at_level(logging.INFO):
            batch = random_batch()
            for _ in range(2):
                model.encode(batch["speech"], batch["speech_lengths"])
        return [(r.levelname, r.message) for r in caplog.records if "quantized layers" in r.message]

    return evaluate


def test_on_codes(model, said):
    threads = torch.get_num_threads()
    path = describe_path(model)
    assert path.startswith("INT4: all 8 quantized layers compute on codes (C++ kernels, ")
    assert path.endswith(f" {threads} threads)")
    ((level, message),) = said(model)
    assert level == "INFO" and message.startswith("INT4: quantized layers compute on codes (C++ ")
    assert describe_path(convert(model)) == path


@pytest.mark.parametrize("choice", ["model", "environment"])
def test_emulated_by_choice(model, said, monkeypatch, choice):
    if choice == "environment":
        monkeypatch.setenv("ESPNET_QUANT4_INFERENCE", "emulated")
        use_int4(model)
        why = "ESPNET_QUANT4_INFERENCE=emulated"
    else:
        use_int4(model, "emulated")
        why = "model_conf: inference=emulated"
    assert describe_path(model) == f"emulated in float: all 8 quantized layers: {why}"
    assert said(model) == []


def test_training_mode(model, said):
    model.train()
    assert "training mode; call its eval()" in describe_path(model)
    assert said(model, gradients=True) == []  # that is training
    ((level, message),) = said(model)
    assert level == "WARNING" and "training mode; call its eval()" in message


def test_gradients(model, said):
    assert "gradients are on; call the model under torch.no_grad()" in describe_path(model, True)
    ((level, message),) = said(model, gradients=True)
    assert level == "WARNING" and "torch.no_grad()" in message


def test_precision_and_device(model):
    assert "the model is in float64; INT4" in describe_path(model.double())
    assert "the model is on meta; INT4 kernels run on cpu" in describe_path(model.to("meta"))


def test_weights_of_inference_mode(model, said):
    with torch.inference_mode():
        model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()}, assign=True)
    assert "torch.inference_mode(), which does not tell" in describe_path(model)
    ((level, _),) = said(model)
    assert level == "WARNING"


def test_a_part_in_float_is_named(model, said):
    del model.joint_network.lin_out.quantizers["input"]
    path = describe_path(model)
    assert path.startswith("INT4: 7 of 8 quantized layers compute on codes (")
    assert path.endswith(
        "emulated in float: 1 of 8 quantized layers (joint_network.lin_out): the scheme leaves a part "
        "of these layers in float"
    )


def test_without_the_library(model, said, monkeypatch, tmp_path):
    monkeypatch.setenv("ESPNET_QUANT4_LIBRARY", str(tmp_path / "none.so"))
    for cached in (library.load, library.is_available, library._instruction_sets):
        cached.cache_clear()
    try:
        assert "not built: no" in describe_path(model) and "emulated in float" in describe_path(
            model
        )
        converted = describe_path(convert(model))
        assert (
            converted.startswith("INT4: all 8") and "(plain PyTorch, slower: the INT4" in converted
        )
        with pytest.warns(RuntimeWarning, match="not built"):
            ((level, message),) = said(model)
        assert level == "WARNING" and "kernels.build" in message
    finally:
        monkeypatch.undo()
        for cached in (library.load, library.is_available, library._instruction_sets):
            cached.cache_clear()


def test_what_is_not_quantized(model, said):
    assert describe_path(torch.nn.Linear(2, 3)) == "float: the model has no quantized layer"
    assert describe_path(QuantLinear(2, 3)) == "float: the model has no quantized layer"
    assert said(build_transducer()) == []


def test_an_instruction_set_that_does_not_work_is_a_reason(monkeypatch):
    monkeypatch.setenv("ESPNET_QUANT4_INSTRUCTION_SET", "mmx")
    assert "ESPNET_QUANT4_INSTRUCTION_SET=mmx: valid on this" in running_path.describe_kernels()
