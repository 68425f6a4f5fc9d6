"""Sentence costs of an ESPnet language model, held against its own probabilities."""

import argparse
import math

import pytest
import torch
import yaml
from espnet2.tasks.lm import LMTask

from espnet_quant4.hybrid.decode.language_models import load_language_model
from espnet_quant4.hybrid.graph.arpa import LanguageModelError
from espnet_quant4.hybrid.openfst import FstFormatError
from espnet_quant4.int4.lm_file import save

TOKENS = ["<blank>", "<unk>", "a", "ab", "b", "<sos/eos>"]


@pytest.fixture
def espnet_model(tmp_path):
    torch.manual_seed(0)
    config = LMTask.get_default_config()
    config.update(
        token_list=TOKENS,
        token_type="word",
        lm="seq_rnn",
        lm_conf={"unit": 8, "nlayers": 1, "dropout_rate": 0.0},
    )
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    model = LMTask.build_model(argparse.Namespace(**config))
    torch.save(model.state_dict(), tmp_path / "lm.pth")
    return model.eval(), tmp_path / "lm.pth"


@pytest.mark.parametrize("sentence", ["a b", "ab", "", "a z b"])
def test_the_cost_of_a_sentence_includes_its_end(espnet_model, sentence):
    model, path = espnet_model
    words = sentence.split()
    unknown, end = TOKENS.index("<unk>"), len(TOKENS) - 1
    ids = [TOKENS.index(w) if w in TOKENS else unknown for w in words]
    with torch.no_grad():
        scores, _ = model.lm(torch.tensor([[end, *ids]]), None)
    log_probs = torch.log_softmax(scores[0], dim=-1)
    wanted = -sum(float(log_probs[i, token]) for i, token in enumerate([*ids, end]))
    assert load_language_model(path)(words) == pytest.approx(wanted, rel=1e-5)
    assert 0 < wanted < math.inf


def test_an_int4_file_costs_what_its_model_does(tmp_path):
    config = LMTask.get_default_config()
    weight = {"quantizer": "max", "bits": 8}
    activation = {"quantizer": "fix", "bits": 8, "clip": 1.0}
    lstm = {"weight_ih": weight, "weight_hh": weight, "input": activation, "hidden": activation}
    scheme = {"lstm": lstm, "linear": {"weight": weight, "input": activation}}
    config.update(
        token_list=TOKENS,
        token_type="word",
        lm="quant_seq_rnn",
        lm_conf={"unit": 8, "nlayers": 1, "scheme": {**scheme, "embedding": {"weight": weight}}},
    )
    model = LMTask.build_model(argparse.Namespace(**config))
    save(model, config, tmp_path / "lm.int4")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(model.state_dict(), tmp_path / "lm.pth")
    costs = [load_language_model(tmp_path / f"lm.{kind}") for kind in ("int4", "pth")]
    for words in (["a", "b"], ["ab"], []):
        found, expected = (cost(words) for cost in costs)
        assert found == pytest.approx(expected, rel=1e-4) and 0 < found < math.inf


def test_a_checkpoint_of_something_else_is_refused(espnet_model):
    _, path = espnet_model
    torch.save({"foo": torch.ones(1)}, path)
    with pytest.raises(
        ValueError, match="lm.pth: not the parameters of the model of .*config.yaml"
    ):
        load_language_model(path)


def test_another_kind_of_file_is_refused(tmp_path):
    with pytest.raises(LanguageModelError, match=r"valid: \.arpa, .*\.fst.*\.pth"):
        load_language_model(tmp_path / "lm.klm")
    (tmp_path / "G.fst").write_text("0 1 1 1\n")
    (tmp_path / "words.txt").write_text("<eps> 0\n")
    with pytest.raises(FstFormatError, match=r"G\.fst: no FST in OpenFst's binary form"):
        load_language_model(tmp_path / "G.fst")
