"""Frames of a padded batch as rows of one matrix, without the padding."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class RowLayout:
    """Where the frames of a batch ``(T, B, ...)`` stand: frame ``t`` of sequence ``b`` is row
    ``first_rows[b] + t * row_stride``.

    Attributes:
        frames: ``T``.
        batch: ``B``.
        rows: number of rows.
        batch_major: whether the batch lies in memory as ``(B, T, ...)``.
        first_rows: ``(B,)`` int64.
        row_stride: rows from a frame to the next.
        index: ``(rows,)`` int64, where each row is among all ``T * B`` frames in memory; None for all.
    """

    frames: int
    batch: int
    rows: int
    batch_major: bool
    first_rows: torch.Tensor
    row_stride: int
    index: torch.Tensor | None

    def take(self, x: torch.Tensor) -> torch.Tensor:
        """Return the rows of ``(T, B, F)``, ``(rows, F)`` contiguous."""
        flat = (x.transpose(0, 1) if self.batch_major else x).flatten(0, 1)
        return flat.contiguous() if self.index is None else flat.index_select(0, self.index)

    def give(self, rows: torch.Tensor) -> torch.Tensor:
        """Return ``(T, B, F)`` of rows ``(rows, F)``, zeros where there is none."""
        if self.index is not None:
            padded = rows.new_zeros(self.frames * self.batch, rows.size(1))
            rows = padded.index_copy_(0, self.index, rows)
        if self.batch_major:
            return rows.unflatten(0, (self.batch, self.frames)).transpose(0, 1)
        return rows.unflatten(0, (self.frames, self.batch))


def row_layout(x: torch.Tensor, lengths: torch.Tensor | None) -> RowLayout:
    """Return the layout of a batch, in the order in which it lies in memory where nothing is left out.

    Args:
        x: ``(T, B, F)``.
        lengths: ``(B,)`` int64, each in ``1..T``, whose padding is left out; None: all are ``T``.
    """
    frames, batch, _ = x.shape
    batch_major = x.transpose(0, 1).is_contiguous() and not x.is_contiguous()
    if lengths is not None:
        sequence, frame = (torch.arange(frames, device=x.device) < lengths.unsqueeze(1)).nonzero(
            as_tuple=True
        )
        index = sequence * frames + frame if batch_major else frame * batch + sequence
        first = lengths.cumsum(0) - lengths
        return RowLayout(frames, batch, index.numel(), batch_major, first, 1, index)
    every = torch.arange(batch, device=x.device)
    first, stride = (every * frames, 1) if batch_major else (every, batch)
    return RowLayout(frames, batch, frames * batch, batch_major, first, stride, None)
