"""Concatenation of consecutive feature frames, the low-frame-rate input of LSTM recognizers."""

from __future__ import annotations

import torch


def stack_frames(
    feats: torch.Tensor, feats_lengths: torch.Tensor, factor: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Join every ``factor`` frames into one; the last group of a sequence is filled with zeros.

    Args:
        feats: ``(B, T, F)``; frames past a sequence's length are set to zero.
        feats_lengths: ``(B,)`` int64.
        factor: how many frames make one, at least 1.

    Returns:
        ``(B, ceil(T / factor), factor * F)`` and the lengths ``ceil(length / factor)``.
    """
    if factor == 1:
        return feats, feats_lengths
    batch, frames, size = feats.shape
    time = torch.arange(frames, device=feats.device)
    padding = time >= feats_lengths.to(feats.device).unsqueeze(1)
    feats = feats.masked_fill(padding.unsqueeze(2), 0.0)
    feats = torch.nn.functional.pad(feats, (0, 0, 0, -frames % factor))
    return (
        feats.reshape(batch, -1, factor * size),
        torch.div(feats_lengths + factor - 1, factor, rounding_mode="floor"),
    )
