"""The callback that starts ESPnet3's trainings from a checkpoint."""

from types import SimpleNamespace

import pytest
import torch
from small_transducer import SCHEME, build_transducer

pytest.importorskip("lightning")
from espnet_quant4.asr.initial_parameters import InitialParameters
from espnet_quant4.checkpoints import CheckpointError

STARTS, RESUMES = SimpleNamespace(ckpt_path=None), SimpleNamespace(ckpt_path="last.ckpt")


@pytest.fixture
def checkpoint(tmp_path):
    state = build_transducer(seed=1).state_dict()
    torch.save(state, tmp_path / "fp32.pth")
    return state, tmp_path / "fp32.pth"


def set_up(path, trainer=STARTS):
    module = SimpleNamespace(model=build_transducer(SCHEME, seed=2))
    InitialParameters(path).setup(trainer, module, "fit")
    return module.model.state_dict()


def test_the_whole_model_is_loaded(checkpoint, caplog):
    state, path = checkpoint
    loaded = set_up(str(path))
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
    assert "start random" not in caplog.text


def test_what_stays_random_is_named(checkpoint, caplog):
    state, path = checkpoint
    loaded = set_up(f"{path}:encoder:encoder")
    name = "encoder.enc.0.nbrnn.weight_hh_l0"
    assert torch.equal(loaded[name], state[name])
    assert "parameters start random: decoder.embed.weight" in caplog.text
    caplog.clear()
    set_up(None)
    assert "parameters start random: encoder.enc" in caplog.text


def test_a_training_that_is_resumed_keeps_its_own(checkpoint):
    state, path = checkpoint
    kept = set_up(str(path), RESUMES)
    assert not torch.equal(kept["ctc.ctc_lo.weight"], state["ctc.ctc_lo.weight"])


def test_other_files_are_refused(checkpoint, tmp_path):
    torch.save({"foo": torch.ones(1)}, tmp_path / "foo.pth")
    (tmp_path / "page.pth").write_text("<html>")
    for name, message in (
        ("none.pth", "none.pth: no such file.*there are: .*fp32.pth"),
        ("foo.pth", "does not fit .*1 not in the model: foo"),
        ("page.pth", "is a web page"),
    ):
        with pytest.raises(CheckpointError, match=message):
            set_up(str(tmp_path / name))
