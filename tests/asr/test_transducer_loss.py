"""Transducer losses against the sum over all alignments, spelled out."""

import functools
import itertools
import sys

import pytest
import torch

from espnet_quant4.asr.joint_network import QuantJointNetwork
from espnet_quant4.asr.transducer_loss import REQUIREMENTS, build_transducer_loss

BLANK = 0


def loss_by_enumeration(logits, target, frames):
    """Negative log of the summed probability of every path through the lattice of one utterance."""
    log_probs = logits.log_softmax(-1)
    labels = len(target)
    paths = []
    # A path ends with the blank of the last frame; the order of the other moves is free.
    for label_moves in itertools.combinations(range(frames - 1 + labels), labels):
        t = u = 0
        total = logits.new_zeros(())
        for move in range(frames - 1 + labels):
            if move in label_moves:
                total = total + log_probs[t, u, target[u]]
                u += 1
            else:
                total = total + log_probs[t, u, BLANK]
                t += 1
        paths.append(total + log_probs[t, u, BLANK])
    return -torch.logsumexp(torch.stack(paths), 0)


def random_case(seed):
    torch.manual_seed(seed)
    vocab, encoder_size, decoder_size = 5, 6, 4
    frames, labels = torch.tensor([4, 3, 1]), torch.tensor([3, 1, 2])
    joint = QuantJointNetwork(vocab, encoder_size, decoder_size, joint_space_size=7)
    encoder_out = torch.randn(3, 4, encoder_size, requires_grad=True)
    decoder_out = torch.randn(3, 4, decoder_size, requires_grad=True)
    targets = torch.randint(1, vocab, (3, 3), dtype=torch.int32)
    return joint, encoder_out, decoder_out, targets, frames.int(), labels.int()


@pytest.mark.parametrize("name", ["torchaudio", "numba"])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_enumeration(name, seed):
    case = random_case(seed)
    joint, encoder_out, decoder_out, targets, frames, labels = case
    loss = build_transducer_loss(name, BLANK, 5, 6, 4)(*case)
    logits = joint(encoder_out.unsqueeze(2), decoder_out.unsqueeze(1))
    expected = torch.stack(
        [
            loss_by_enumeration(logits[i], targets[i, : labels[i]].tolist(), int(frames[i]))
            for i in range(3)
        ]
    ).mean()
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    wanted = [encoder_out, decoder_out, *joint.parameters()]
    for got, reference in zip(
        torch.autograd.grad(loss, wanted), torch.autograd.grad(expected, wanted), strict=False
    ):
        torch.testing.assert_close(got, reference, atol=1e-5, rtol=1e-4)


def test_unknown_loss_names_the_choices():
    with pytest.raises(ValueError, match="torchaudio, k2, warprnnt, numba"):
        build_transducer_loss("warp", BLANK, 5, 6, 4)


@pytest.mark.parametrize("name", sorted(REQUIREMENTS))
def test_missing_package_fails_with_the_install_line(name, monkeypatch):
    module, installation = REQUIREMENTS[name]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError) as caught:
        build_transducer_loss(name, BLANK, 5, 6, 4)
    assert installation in str(caught.value) and name in str(caught.value)


def test_pruned_loss_of_k2(monkeypatch):
    """With targets shorter than the pruning range nothing is pruned, and both parts are exact.

    k2's wheels are for single versions of torch, so this runs only where one is installed.
    """
    k2 = pytest.importorskip("k2")
    # Smoothing mixes in scores of one side alone; without it the simple loss is a plain one.
    unsmoothed = functools.partial(k2.rnnt_loss_smoothed, lm_only_scale=0.0, am_only_scale=0.0)
    monkeypatch.setattr(k2, "rnnt_loss_smoothed", unsmoothed)
    case = random_case(0)
    joint, encoder_out, decoder_out, targets, frames, labels = case
    criterion = build_transducer_loss("k2", BLANK, 5, 6, 4)
    full = joint(encoder_out.unsqueeze(2), decoder_out.unsqueeze(1))
    simple = criterion.simple_encoder(encoder_out).unsqueeze(2)
    simple = simple + criterion.simple_decoder(decoder_out).unsqueeze(1)
    exact, exact_simple = (
        torch.stack(
            [
                loss_by_enumeration(logits[i], targets[i, : labels[i]].tolist(), int(frames[i]))
                for i in range(3)
            ]
        ).mean()
        for logits in (full, simple)
    )
    expected = exact + criterion.SIMPLE_LOSS_WEIGHT * exact_simple
    torch.testing.assert_close(criterion(*case), expected, atol=1e-4, rtol=1e-4)
