"""Deltas and stacked neighbours: their values, and that padding changes nothing."""

import numpy as np
import pytest
import torch

from espnet_quant4.asr.preencoder.frame_context import FrameContext


def kaldi_deltas(feats: np.ndarray, window: int) -> np.ndarray:
    """Kaldi's regression formula, with the first and last frame repeated past the ends."""
    frames = len(feats)
    result = np.zeros_like(feats)
    for t in range(frames):
        for n in range(1, window + 1):
            later, earlier = min(t + n, frames - 1), max(t - n, 0)
            result[t] += n * (feats[later] - feats[earlier])
    return result / (2 * sum(n * n for n in range(1, window + 1)))


def batch(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    feats = [torch.randn(length, 3) for length in lengths]
    return torch.nn.utils.rnn.pad_sequence(feats, batch_first=True), torch.tensor(lengths)


@pytest.mark.parametrize("window", [1, 2, 3])
def test_deltas_are_kaldis(window: int) -> None:
    feats, lengths = batch(9, 4, 1)
    found, found_lengths = FrameContext(3, deltas=2, delta_window=window)(feats, lengths)
    assert found.shape == (3, 9, 9) and torch.equal(found_lengths, lengths)
    for utterance, length in enumerate(lengths):
        static = feats[utterance, :length].numpy().astype(np.float64)
        first = kaldi_deltas(static, window)
        expected = np.concatenate([static, first, kaldi_deltas(first, window)], axis=1)
        np.testing.assert_allclose(found[utterance, :length], expected, atol=1e-6)


def test_neighbours_stand_beside_each_other() -> None:
    feats, lengths = batch(5, 2)
    found, _ = FrameContext(3, left_context=2, right_context=1)(feats, lengths)
    assert found.shape == (2, 5, 12)
    for utterance, length in enumerate(lengths.tolist()):
        for t in range(length):
            frames = [min(max(t + shift, 0), length - 1) for shift in (-2, -1, 0, 1)]
            assert torch.equal(found[utterance, t], feats[utterance, frames].flatten())


@pytest.mark.parametrize("options", [{"deltas": 2}, {"left_context": 3, "deltas": 1}])
def test_padding_changes_nothing(options: dict[str, int]) -> None:
    feats, lengths = batch(8, 5)
    context = FrameContext(3, **options)
    together, _ = context(feats.masked_fill(feats == 0, 77.0), lengths)
    alone, _ = context(feats[1:, :5], lengths[1:])
    torch.testing.assert_close(together[1:, :5], alone)
    assert not together[1, 5:].any()


def test_without_options_it_changes_nothing() -> None:
    feats, lengths = batch(4, 3)
    context = FrameContext(3)
    assert context.output_size() == 3
    assert context(feats, lengths)[0] is feats


@pytest.mark.parametrize(
    "options, message",
    [
        ({"deltas": 3}, "deltas: 3; valid are 0 to 2"),
        ({"deltas": -1}, "deltas: -1; valid are 0 to 2"),
        ({"delta_window": 0}, "delta_window: 0; valid are 1 and above"),
        ({"left_context": -1}, "left_context: -1; valid are 0 and above"),
    ],
)
def test_wrong_options(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FrameContext(3, **options)
