"""The definition of integer inference, in plain PyTorch: what the C++ kernels are held against.

It is also what runs where they are not built.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from espnet_quant4.kernels.reference import lstm_cell, reverse_padded, round_to_codes


@dataclass(frozen=True)
class DirectionCodes:
    """One layer and direction of an LSTM in codes.

    Attributes:
        weight_ih: ``(4 H, inputs)`` int8, gates in the order i, f, g, o.
        weight_ih_max: its largest code.
        scale_ih: ``(parts, 4 H)`` float32: input scale times weight scale, for each of ``parts`` equal
            blocks of input columns.
        weight_hh: ``(4 H, H)`` int8.
        weight_hh_max: its largest code.
        scale_hh: ``(4 H,)`` float32: hidden scale times weight scale.
        bias: ``(4 H,)`` float32, both biases added.
        hidden_clip: clip of the hidden state.
        hidden_max: largest code of the hidden state.
    """

    weight_ih: torch.Tensor
    weight_ih_max: int
    scale_ih: torch.Tensor
    weight_hh: torch.Tensor
    weight_hh_max: int
    scale_hh: torch.Tensor
    bias: torch.Tensor
    hidden_clip: float
    hidden_max: int


def quantize(x: torch.Tensor, clip: float, max_code: int) -> torch.Tensor:
    """Return ``round_half_even(clamp(x, -clip, clip) / (clip / max_code))`` as int8.

    Raises:
        ValueError: for NaN, which has no code.
    """
    # As a tensor, for the scale to be a float32 quotient as in training.
    codes = round_to_codes(x.float(), torch.tensor(clip, dtype=torch.float32), max_code)
    if bool(codes.isnan().any()):
        raise ValueError("the input holds NaN, which has no code; check where it comes from.")
    return codes.to(torch.int8)


def sums(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the exact sums of code products.

    Args:
        x: ``(frames, columns)`` int8.
        weight: ``(rows, columns)`` int8.

    Returns:
        ``(frames, rows)`` int32.
    """
    # Float products are exact while every partial sum is below 2^53, and much faster than integers.
    return (x.double() @ weight.double().T).to(torch.int32)


def linear(
    x: torch.Tensor, clip: float, max_code: int, weight: torch.Tensor, scale: torch.Tensor,
    bias: torch.Tensor | None,
) -> torch.Tensor:  # fmt: skip
    """Return ``scale * (Q(x) W^T) + bias`` ``(frames, rows)`` float32.

    Args:
        x: ``(frames, columns)`` float32.
        clip: of the input.
        max_code: largest code of the input.
        weight: ``(rows, columns)`` int8 codes.
        scale: ``(rows,)`` float32.
        bias: ``(rows,)`` float32 or None.
    """
    out = scale * sums(quantize(x, clip, max_code), weight).float()
    return out if bias is None else out + bias


def lstm(
    layers: Sequence[Sequence[DirectionCodes]],
    x: torch.Tensor,
    input_clip: float,
    input_max: int,
    hidden: torch.Tensor,
    cell: torch.Tensor,
    lengths: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Run a stack of layers on codes (the integer contract of docs/design.md).

    Args:
        layers: for each layer one entry a direction.
        x: ``(T, B, inputs)`` float32.
        input_clip: clip of the input.
        input_max: its largest code.
        hidden: ``(layers * directions, B, H)`` float32 initial states.
        cell: likewise.
        lengths: ``(B,)`` int64, each in ``1..T``; None: all are ``T``.

    Returns:
        Hidden states of the last layer ``(T, B, directions * H)`` float32, zero past each length;
        final hidden and cell states; and the codes of every layer ``(layers, T, B, directions * H)``.
    """
    frames, batch, _ = x.shape
    if lengths is None:
        lengths = torch.full((batch,), frames)
    valid = (torch.arange(frames).unsqueeze(1) < lengths).unsqueeze(-1)
    codes = quantize(x.masked_fill(~valid, 0.0), input_clip, input_max)
    outputs = x.new_zeros(0)
    final_hidden, final_cell, all_codes = [], [], []
    for layer, directions in enumerate(layers):
        floats, next_codes = [], []
        for d, weights in enumerate(directions):
            number = layer * len(directions) + d
            source = reverse_padded(codes, lengths) if d else codes
            steps, quantized, last_hidden, last_cell = _direction(
                weights, source, hidden[number], cell[number], lengths
            )
            floats.append(reverse_padded(steps, lengths) if d else steps)
            next_codes.append(reverse_padded(quantized, lengths) if d else quantized)
            final_hidden.append(last_hidden)
            final_cell.append(last_cell)
        outputs = torch.cat(floats, dim=-1).masked_fill(~valid, 0.0)
        codes = torch.cat(next_codes, dim=-1).masked_fill(~valid, 0)
        all_codes.append(codes)
    return outputs, torch.stack(final_hidden), torch.stack(final_cell), torch.stack(all_codes)


def _direction(
    weights: DirectionCodes,
    codes: torch.Tensor,
    hidden: torch.Tensor,
    cell: torch.Tensor,
    lengths: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Run one direction in its own order; see `lstm`."""
    frames, batch, inputs = codes.shape
    parts = weights.scale_ih.size(0)
    gates = weights.bias.expand(frames * batch, -1)
    flat = codes.reshape(frames * batch, inputs)
    columns = inputs // parts
    for part, scale in enumerate(weights.scale_ih):
        here = slice(part * columns, (part + 1) * columns)
        gates = gates + scale * sums(flat[:, here], weights.weight_ih[:, here]).float()
    gates = gates.view(frames, batch, -1)
    recurrent = quantize(hidden, weights.hidden_clip, weights.hidden_max)
    weight_hh = weights.weight_hh.double().T
    steps, quantized = [], []
    for step in range(frames):
        products = (recurrent.double() @ weight_hh).float()
        new_hidden, new_cell = lstm_cell(gates[step] + weights.scale_hh * products, cell)
        running = (step < lengths).unsqueeze(1)
        hidden = torch.where(running, new_hidden, hidden)
        cell = torch.where(running, new_cell, cell)
        recurrent = quantize(hidden, weights.hidden_clip, weights.hidden_max)
        steps.append(hidden)
        quantized.append(recurrent)
    return torch.stack(steps), torch.stack(quantized), hidden, cell
