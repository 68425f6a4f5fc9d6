"""Sequence training through the model: LF-MMI is built when it is needed, and leaves no trace."""

from pathlib import Path

import numpy as np
import pytest
import torch

from espnet_quant4.hybrid.lfmmi import build_lfmmi_loss
from espnet_quant4.hybrid.lfmmi.denominator import estimate_denominator
from espnet_quant4.hybrid.lfmmi.fst_text import write_fst
from espnet_quant4.hybrid.model.criterion import HybridCriterion

PDFS = 4


def alignments(utterances: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [
        np.repeat(rng.integers(0, PDFS, size=4), rng.integers(2, 6, size=4))
        for _ in range(utterances)
    ]


@pytest.fixture
def denominator(tmp_path: Path) -> Path:
    named = [(f"utt{i}", ids.astype(np.int64)) for i, ids in enumerate(alignments(12))]
    write_fst(estimate_denominator(iter(named), PDFS, 2), tmp_path / "den.fst")
    return tmp_path / "den.fst"


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Targets `(B, T)`, which frames have one, lengths: padded at the end."""
    ids = [torch.from_numpy(a) for a in alignments(3)]
    targets = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=-1)
    return targets, targets >= 0, torch.tensor([len(a) for a in ids])


def test_lfmmi_with_cross_entropy_is_learned(denominator: Path) -> None:
    criterion = HybridCriterion("lfmmi", lfmmi_conf={"denominator": str(denominator)})
    targets, scored, lengths = batch()
    logits = torch.zeros(int(scored.sum()), PDFS, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss, stats = criterion(logits, targets, scored, lengths)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    assert stats["loss_lfmmi"] + 0.1 * stats["loss_ce"] == pytest.approx(losses[-1], rel=1e-5)
    assert {"lfmmi_numerator", "lfmmi_denominator"} <= stats.keys()
    # Neither does the checkpoint hold the graph.
    assert not criterion.state_dict()


def test_frames_reach_the_loss_in_their_places(denominator: Path) -> None:
    conf = {"denominator": str(denominator)}
    targets, scored, lengths = batch()
    torch.manual_seed(0)
    padded = torch.randn(*targets.shape, PDFS)
    expected, _ = build_lfmmi_loss(**conf)(padded, lengths, targets)
    criterion = HybridCriterion("lfmmi", lfmmi_conf=conf, ce_weight=0.0)
    found, _ = criterion(padded[scored], targets, scored, lengths)
    torch.testing.assert_close(found, expected)


def test_the_graph_is_read_when_it_is_needed() -> None:
    """A trained model is used where its denominator graph is not."""
    criterion = HybridCriterion("lfmmi", lfmmi_conf={"denominator": "gone/den.fst"})
    targets, scored, lengths = batch()
    with pytest.raises(FileNotFoundError, match="gone/den.fst"):
        criterion(torch.zeros(int(scored.sum()), PDFS), targets, scored, lengths)
