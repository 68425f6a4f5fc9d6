"""Sentence costs of an ESPnet language model, held against its own probabilities."""

import math

import pytest
import torch
import yaml

from espnet_quant4.hybrid.decode.language_models import load_language_model
from espnet_quant4.hybrid.graph.arpa import LanguageModelError
from espnet_quant4.hybrid.openfst import FstFormatError

TOKENS = ["<blank>", "<unk>", "a", "ab", "b", "<sos/eos>"]


@pytest.fixture
def espnet_model(tmp_path):
    from espnet2.tasks.lm import LMTask

    torch.manual_seed(0)
    config = LMTask.get_default_config()
    config.update(
        token_list=TOKENS,
        token_type="word",
        lm="seq_rnn",
        lm_conf={"unit": 8, "nlayers": 1, "dropout_rate": 0.0},
    )
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    import argparse

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


def test_another_kind_of_file_is_refused(tmp_path):
    with pytest.raises(LanguageModelError, match=r"valid: \.arpa, .*\.fst.*\.pth"):
        load_language_model(tmp_path / "lm.klm")
    (tmp_path / "G.fst").write_text("0 1 1 1\n")
    (tmp_path / "words.txt").write_text("<eps> 0\n")
    with pytest.raises(FstFormatError, match=r"G\.fst: no FST in OpenFst's binary form"):
        load_language_model(tmp_path / "G.fst")
