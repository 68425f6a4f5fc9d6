"""Chunks: every frame once, each with its target, in sequence or at random offsets."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_quant4.hybrid.model.chunks import ChunkCutter

CHUNKS = st.fixed_dictionaries(
    {
        "size": st.integers(1, 9),
        "mode": st.sampled_from(["sequential", "random"]),
        "left_context": st.integers(0, 4),
        "right_context": st.integers(0, 4),
    }
)


def batch(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features that name their utterance and frame, and targets that do."""
    size = torch.tensor(lengths)
    frames = torch.arange(max(lengths)).expand(len(lengths), -1)
    targets = 1000 * torch.arange(len(lengths)).unsqueeze(1) + frames
    valid = frames < size.unsqueeze(1)
    feats = targets.float().masked_fill(~valid, -5.0).unsqueeze(2)
    return feats, size, targets.masked_fill(~valid, -1)


@settings(deadline=None)
@given(st.lists(st.integers(1, 25), min_size=1, max_size=5), CHUNKS, st.integers(0, 99))
def test_every_frame_is_scored_once_with_its_own_target(lengths, options, seed) -> None:
    torch.manual_seed(seed)
    feats, size, targets = batch(lengths)
    chunks, chunk_lengths, chunk_targets = ChunkCutter(**options).cut(feats, size, targets)
    scored = chunk_targets >= 0
    assert sorted(chunk_targets[scored].tolist()) == sorted(targets[targets >= 0].tolist())
    # The feature of each scored frame is that of its target.
    assert torch.equal(chunks[scored].squeeze(1), chunk_targets[scored].float())
    inside = torch.arange(chunks.size(1)) < chunk_lengths.unsqueeze(1)
    assert not (scored & ~inside).any() and not chunks[~inside].any()
    assert int(scored.sum(1).max()) <= options["size"]
    assert chunk_lengths.tolist() == sorted(chunk_lengths.tolist(), reverse=True)
    # Frames of a chunk follow each other, whether they count or are context.
    steps = chunks[:, 1:, 0] - chunks[:, :-1, 0]
    assert bool((steps[inside[:, 1:]] == 1).all())


def test_sequential_chunks_of_the_paper() -> None:
    feats, size, targets = batch([50])
    _, lengths, chunk_targets = ChunkCutter(21, "sequential").cut(feats, size, targets)
    assert lengths.tolist() == [21, 21, 8]
    assert chunk_targets[1].tolist() == list(range(21, 42))


def test_context_is_seen_and_does_not_count() -> None:
    feats, size, targets = batch([20])
    cutter = ChunkCutter(5, "sequential", left_context=3, right_context=2)
    chunks, lengths, chunk_targets = cutter.cut(feats, size, targets)
    assert sorted(lengths.tolist()) == [7, 8, 10, 10]
    second = next(i for i, row in enumerate(chunk_targets.tolist()) if 5 in row)
    assert chunks[second, :, 0].tolist() == list(range(2, 12))
    assert chunk_targets[second].tolist() == [-1] * 3 + list(range(5, 10)) + [-1] * 2


def test_random_cuts_differ_between_epochs() -> None:
    feats, size, targets = batch([40])
    firsts = set()
    for seed in range(20):
        torch.manual_seed(seed)
        _, _, chunk_targets = ChunkCutter(8, "random").cut(feats, size, targets)
        firsts.add(tuple(sorted(chunk_targets[:, 0].tolist())))
    assert len(firsts) > 4


def test_keep_draws_a_share() -> None:
    feats, size, targets = batch([40, 40])
    kept = [
        ChunkCutter(4, "sequential", keep=0.25).cut(feats, size, targets)[2].flatten().tolist()
        for _ in range(10)
    ]
    assert {len(frames) for frames in kept} == {20}
    assert len({tuple(frames) for frames in kept}) > 1
    assert len(ChunkCutter(4, "sequential", keep=0.001).cut(feats, size, targets)[1]) == 1


def test_mode_none_leaves_utterances_whole() -> None:
    given_batch = batch([4, 2])
    assert all(a is b for a, b in zip(ChunkCutter(3).cut(*given_batch), given_batch, strict=True))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"mode": "shuffled"}, "mode: 'shuffled'; valid: none, sequential, random"),
        ({"mode": "random"}, "size: 0; valid with mode: random are whole numbers from 1"),
        ({"size": -1}, "size: -1"),
        ({"keep": 0.0}, "keep: 0.0; valid are numbers above 0, to 1"),
        ({"keep": 1.5}, "keep: 1.5"),
        ({"left_context": -1}, "left_context: -1"),
    ],
)
def test_wrong_options(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        ChunkCutter(**options)
