"""ESPnet's ``--train_dtype float64``: training, saving and reading back in double precision."""

import pytest
import torch
from espnet2.tasks.asr import ASRTask
from hybrid.small_hybrid import training_options, write_corpus
from small_asr import asr_options, write_asr_corpus
from small_transducer import SCHEME, build_transducer, random_batch

from espnet_quant4.asr.lm.seq_rnn_lm import QuantSequentialRNNLM
from espnet_quant4.hybrid.task import HybridTask


@pytest.mark.parametrize("task", ["asr", "hybrid"])
def test_espnet_trains_in_double_precision(task, tmp_path):
    settings = {"max_epoch": 1, "batch_size": 8}
    if task == "asr":
        options = asr_options(write_asr_corpus(tmp_path, "tailored", **settings), tmp_path / "exp")
    else:
        write_corpus(tmp_path, model_conf={"scheme": "tailored"}, **settings)
        options = training_options(tmp_path, tmp_path / "exp")
    task_class = ASRTask if task == "asr" else HybridTask
    task_class.main(cmd=[*options, "--train_dtype", "float64"])
    state = torch.load(tmp_path / "exp" / "1epoch.pth")
    assert {v.dtype for v in state.values() if v.is_floating_point()} == {torch.float64}
    # The loss is that of a model whose numbers are there: not 0, not infinite.
    reporter = torch.load(tmp_path / "exp" / "checkpoint.pth", weights_only=False)["reporter"]
    assert 0 < reporter["stats"][1]["valid"]["loss"] < 100


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_transducer_trains_and_evaluates_in_other_precisions(dtype):
    model, other, batch = (
        build_transducer(SCHEME),
        build_transducer(SCHEME).to(dtype),
        random_batch(),
    )
    expected, _, _ = model.train()(**batch)
    batch["speech"] = batch["speech"].to(dtype)
    found, _, _ = other.train()(**batch)
    assert found.item() == pytest.approx(
        expected.item(), rel=1e-5 if dtype == torch.float64 else 0.02
    )
    found.sum().backward()
    assert {p.grad.dtype for p in other.parameters() if p.grad is not None} == {dtype}
    with torch.no_grad():
        assert torch.isfinite(other.eval()(**batch)[0])


def test_language_model_scores_in_double_precision():
    lm = QuantSequentialRNNLM(7, unit=6, nlayers=2, scheme={"lstm": SCHEME["lstm"]})
    tokens = torch.tensor([[1, 4, 2]])
    lm.train()(tokens, None)
    lm.eval()
    y, x = torch.tensor([[2], [3]]), torch.zeros(2, 1)
    single, _ = lm.batch_score(y, [lm.zero_state()] * 2, x)
    wide, states = lm.double().batch_score(y, [lm.zero_state()] * 2, x)
    assert wide.dtype == states[0][0].dtype == torch.float64
    torch.testing.assert_close(wide.detach(), single.detach().double(), rtol=0, atol=1e-4)
