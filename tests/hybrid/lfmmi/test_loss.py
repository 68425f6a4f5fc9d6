"""The LF-MMI loss as ``lfmmi_conf`` makes it."""

import importlib.util
import sys

import numpy as np
import pytest
import torch
from hybrid.lfmmi.cases import SEQUENCES, fst_of, named, random_logits

from espnet_quant4.hybrid.lfmmi import build_lfmmi_loss
from espnet_quant4.hybrid.lfmmi.denominator import estimate_denominator
from espnet_quant4.hybrid.lfmmi.fst_text import write_fst
from espnet_quant4.hybrid.lfmmi.k2_score import K2TotalScore, k2_arcs
from espnet_quant4.hybrid.lfmmi.loss import BACKENDS
from espnet_quant4.hybrid.lfmmi.reference import total_by_enumeration
from espnet_quant4.hybrid.lfmmi.state_graph import compile_graph, for_training

LENGTHS = torch.tensor([4, 2, 1])
PDF_IDS = torch.tensor([[0, 1, 1, 2], [2, 1, -1, -1], [0, 99, 99, 99]])
HAS_K2 = importlib.util.find_spec("k2") is not None


@pytest.fixture
def den_fst(tmp_path):
    write_fst(estimate_denominator(named(SEQUENCES), 3, 2), tmp_path / "den.fst")
    return str(tmp_path / "den.fst")


# k2's wheels are for single versions of torch; what does not depend on it is tested without.
@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "k2" or HAS_K2])
@pytest.mark.parametrize("leak", [0.0, 0.1])
def test_equals_the_enumeration(den_fst, backend, leak):
    loss = build_lfmmi_loss(
        den_fst, tolerance=1, acoustic_scale=0.7, l2_regularize=0.02,
        leaky_hmm_coefficient=leak, backend=backend,
    )  # fmt: skip
    logits = random_logits(3, 4, dtype=torch.float32).requires_grad_()
    from espnet_quant4.hybrid.lfmmi.fst_text import read_fst

    graph = compile_graph(read_fst(den_fst))
    numerator = denominator = squares = 0
    for x, ids, length in zip(logits.double(), PDF_IDS, LENGTHS.tolist(), strict=True):
        scaled = 0.7 * x[:length]
        numerator += total_by_enumeration(for_training(graph), scaled, ids[:length], 1)
        denominator += total_by_enumeration(for_training(graph, leak), scaled)
        squares += x[:length].square().sum()
    expected = (denominator - numerator + 0.5 * 0.02 * squares) / 7
    value, stats = loss(logits, LENGTHS, PDF_IDS)
    assert value.dtype == torch.float32 and value.shape == ()
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-5)
    for ours, wanted in (
        (stats["lfmmi_numerator"], numerator / 7),
        (stats["lfmmi_denominator"], denominator / 7),
        (stats["lfmmi_l2"], 0.5 * 0.02 * squares / 7),
    ):
        torch.testing.assert_close(ours.double(), wanted.detach(), rtol=1e-4, atol=1e-5)
        assert not ours.requires_grad
    (wanted,) = torch.autograd.grad(expected, logits)
    (ours,) = torch.autograd.grad(value, logits)
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)


def test_the_graph_that_k2_gets_has_the_same_paths():
    """Spelled out: k2's states, labels and scores, without k2."""
    graph = for_training(compile_graph(estimate_denominator(named(SEQUENCES), 3, 2)), 0.1)
    arcs = k2_arcs(graph)
    assert (arcs[1:, 0] >= arcs[:-1, 0]).all()  # k2 wants them sorted
    end = int(arcs[:, 1].max())
    assert ((arcs[:, 2] == -1) == (arcs[:, 1] == end)).all() and not (arcs[:, 0] == end).any()
    weights = arcs[:, 3].contiguous().view(torch.float32).double().exp()
    logits = random_logits(1, 4)[0]
    mass = torch.zeros(end + 1, dtype=torch.float64)
    mass[0] = 1
    for frame in [*logits, None]:
        following = torch.zeros_like(mass)
        for (source, target, label, _), weight in zip(arcs.tolist(), weights, strict=True):
            if frame is None and label == -1:
                following[target] += mass[source] * weight
            elif frame is not None and label >= 0:
                following[target] += mass[source] * weight * frame[label].exp()
        mass = following
    expected = total_by_enumeration(graph, logits)
    torch.testing.assert_close(mass[end].log(), expected, rtol=1e-5, atol=1e-5)
    assert K2TotalScore(graph).arcs.dtype == torch.int32


def test_the_loss_is_never_negative_and_training_brings_it_near_zero(den_fst):
    loss = build_lfmmi_loss(den_fst, tolerance=1, l2_regularize=0.0)
    logits = torch.nn.Parameter(torch.zeros(3, 4, 3))
    optimizer = torch.optim.Adam([logits], lr=0.3)
    values = []
    for _ in range(100):
        optimizer.zero_grad()
        value, _ = loss(logits, LENGTHS, PDF_IDS)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[0] > 0.5 and min(values) >= 0 and values[-1] < 0.005
    for x, ids, length in zip(logits, PDF_IDS, LENGTHS.tolist(), strict=True):
        labels = x[:length].argmax(1).tolist()
        runs = [a for a, b in zip(labels, [None, *labels], strict=False) if a != b]
        wanted = ids[:length].tolist()
        assert runs == [a for a, b in zip(wanted, [None, *wanted], strict=False) if a != b]


def test_regularization_holds_outputs_back(den_fst):
    """A constant added to all outputs of a frame is seen by the regularization alone."""
    logits = random_logits(3, 4, dtype=torch.float32)
    plain = build_lfmmi_loss(den_fst, l2_regularize=0.0)
    value, stats = plain(logits, LENGTHS, PDF_IDS)
    shifted, _ = plain(logits + 5, LENGTHS, PDF_IDS)
    torch.testing.assert_close(value, shifted, rtol=1e-4, atol=1e-5)
    assert "lfmmi_l2" not in stats
    regularized = build_lfmmi_loss(den_fst, l2_regularize=0.1)
    assert regularized(logits + 5, LENGTHS, PDF_IDS)[0] > 1 + value


@pytest.mark.parametrize("filling", [1e30, float("nan")])
def test_padding_changes_nothing(den_fst, filling):
    loss = build_lfmmi_loss(den_fst, tolerance=1, l2_regularize=0.1)
    logits = random_logits(3, 4, dtype=torch.float32)
    padding = torch.arange(4) >= LENGTHS.unsqueeze(1)
    padded = logits.masked_fill(padding.unsqueeze(2), filling).requires_grad_()
    value, _ = loss(padded, LENGTHS, PDF_IDS)
    value.backward()
    torch.testing.assert_close(value, loss(logits, LENGTHS, PDF_IDS)[0])
    assert padded.grad.isfinite().all() and (padded.grad[padding] == 0).all()


def test_gradients_of_a_frame_add_up_to_zero(den_fst):
    logits = random_logits(3, 4, dtype=torch.float32).requires_grad_()
    build_lfmmi_loss(den_fst, l2_regularize=0.0)(logits, LENGTHS, PDF_IDS)[0].backward()
    torch.testing.assert_close(logits.grad.sum(2), torch.zeros(3, 4), atol=1e-6, rtol=0)
    assert logits.grad.abs().max() > 0.01


def test_half_precision_is_computed_in_float32(den_fst):
    loss = build_lfmmi_loss(den_fst)
    logits = random_logits(3, 4).bfloat16().requires_grad_()
    value, _ = loss(logits, LENGTHS, PDF_IDS)
    value.backward()
    assert value.dtype == torch.float32 and logits.grad.dtype == torch.bfloat16
    torch.testing.assert_close(value, loss(logits.detach().float(), LENGTHS, PDF_IDS)[0])


def test_nan_reaches_the_loss(den_fst):
    logits = random_logits(3, 4, dtype=torch.float32)
    logits[1, 1, 0] = float("nan")
    assert build_lfmmi_loss(den_fst)(logits, LENGTHS, PDF_IDS)[0].isnan()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "kaldi"}, r"backend: 'kaldi'; valid: torch, k2"),
        ({"tolerance": -1}, r"tolerance: -1; valid are 0 and above"),
        ({"l2_regularize": -0.1}, r"l2_regularize: -0.1"),
        ({"leaky_hmm_coefficient": float("nan")}, r"leaky_hmm_coefficient: nan"),
        ({"acoustic_scale": 0.0}, r"acoustic_scale: 0.0; valid are above 0"),
        ({"num_pdfs": 2}, r"den.fst has pdf ids up to 2, and num_pdfs is 2.*another tree"),
    ],
)
def test_bad_options(den_fst, options, message):
    with pytest.raises(ValueError, match=message):
        build_lfmmi_loss(den_fst, **options)


def test_a_missing_graph_says_how_to_make_one(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"nowhere.fst: there is no such.*hybrid_denominator"
    ):
        build_lfmmi_loss(str(tmp_path / "nowhere.fst"))


def test_missing_k2_fails_with_the_install_line(den_fst, monkeypatch):
    monkeypatch.setitem(sys.modules, "k2", None)
    with pytest.raises(
        ImportError, match=r"backend: k2 needs k2.*wheel of k2 1.24 or newer.*torch"
    ):
        build_lfmmi_loss(den_fst, backend="k2")


@pytest.mark.parametrize(
    ("logits", "lengths", "pdf_ids", "message"),
    [
        ((1, 2, 4), [2], [[0, 0]], r"4 outputs, the denominator graph 3 pdf ids.*num_pdfs: 4"),
        ((1, 2, 3), [2], [[0, 0, 0]], r"\(1, 2, 3\), pdf_ids \(1, 3\)"),
        ((2, 2, 3), [2, 0], [[0, 0], [0, 0]], r"position 1: length 0; valid are 1 to 2"),
        ((1, 2, 3), [3], [[0, 0]], r"position 0: length 3"),
        ((2, 2, 3), [1, 2], [[0, 7], [1, 3]], r"position 1, frame 1: pdf id 3; valid are 0 to 2"),
        ((1, 2, 3), [2], [[-1, 0]], r"position 0, frame 0: pdf id -1"),
    ],
)
def test_bad_batches(den_fst, logits, lengths, pdf_ids, message):
    loss = build_lfmmi_loss(den_fst)
    with pytest.raises(ValueError, match=message):
        loss(torch.zeros(logits), torch.tensor(lengths), torch.tensor(pdf_ids))


def test_a_graph_of_another_source_may_lack_paths_and_the_last_ids(tmp_path):
    write_fst(fst_of([(0, 0, 1, 0.5), (0, 1, 2, 0.5), (1, 1, 2, 0.5)], {1: 0.5}), tmp_path / "g")
    loss = build_lfmmi_loss(str(tmp_path / "g"), num_pdfs=3, l2_regularize=0.0)
    logits = torch.zeros(2, 2, 3)
    value, _ = loss(logits, torch.tensor([2, 2]), torch.tensor([[0, 1], [0, 0]]))
    assert value.isfinite()
    with pytest.raises(ValueError, match=r"positions 1: .*no path for the alignment"):
        loss(logits, torch.tensor([2, 2]), torch.tensor([[0, 1], [1, 2]]))


def test_longer_histories_are_an_option(tmp_path):
    write_fst(estimate_denominator(named(SEQUENCES), 3, 3), tmp_path / "den.fst")
    loss = build_lfmmi_loss(str(tmp_path / "den.fst"))
    ids = torch.from_numpy(np.array([SEQUENCES[0]]))
    value, _ = loss(random_logits(1, 7, dtype=torch.float32), torch.tensor([7]), ids)
    assert value > 0
