"""The definition of rounding and of one LSTM layer with a quantized recurrence, in plain PyTorch.

Every faster form in this package is held against this file. The cell is that of ``torch.nn.LSTM``
(gate order i, f, g, o); the one addition is that the hidden state is quantized before it is used
again (Fasoli et al., "4-bit Quantization of LSTM-based Speech Recognition Models", Interspeech
2021, section 2). The cell state stays in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

Quantize = Callable[[torch.Tensor], torch.Tensor]
Cell = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def round_to_codes(x: torch.Tensor, clip: torch.Tensor | float, max_code: int) -> torch.Tensor:
    """Return ``round_half_even(clamp(x, -clip, clip) / scale)`` in the dtype of ``x``, NaN staying NaN.

    Args:
        x: any shape, float32 or float64.
        clip: broadcastable to ``x``, above 0.
        max_code: largest code, ``2^(bits-1) - 1``.
    """
    return (x.clamp(-clip, clip) / (clip / max_code)).round_()


def reverse_padded(sequence: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Reverse every sequence within its own length; padding stays where it is.

    Args:
        sequence: ``(T, B, ...)``.
        lengths: ``(B,)`` int64, on the device of ``sequence``, each in ``0..T``.

    Returns:
        ``(T, B, ...)``. Applying it twice gives the input back.
    """
    time = torch.arange(sequence.size(0), device=sequence.device).unsqueeze(1)
    source = torch.where(time < lengths, lengths - 1 - time, time)
    batch = torch.arange(sequence.size(1), device=sequence.device)
    return sequence[source, batch]


def lstm_cell(gates: torch.Tensor, cell_state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply the LSTM's nonlinearities and the cell update.

    Args:
        gates: ``(..., 4 * H)`` float32 pre-activations in the order i, f, g, o.
        cell_state: ``(..., H)`` float32.

    Returns:
        The new hidden state and the new cell state, both ``(..., H)`` float32.
    """
    input_gate, forget_gate, cell_gate, output_gate = gates.chunk(4, dim=-1)
    cell_state = torch.sigmoid(forget_gate) * cell_state
    cell_state = cell_state + torch.sigmoid(input_gate) * torch.tanh(cell_gate)
    return torch.sigmoid(output_gate) * torch.tanh(cell_state), cell_state


def lstm_recurrence(
    input_gates: torch.Tensor,
    weight_hh: torch.Tensor,
    hidden_state: torch.Tensor,
    cell_state: torch.Tensor,
    quantize_hidden: Quantize,
    cell: Cell = lstm_cell,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Run the recurrence of one layer, all its directions side by side.

    A direction that runs backward gets its ``input_gates`` reversed by the caller.

    Args:
        input_gates: ``(T, D, B, 4 * H)``: input products plus both biases.
        weight_hh: ``(D, 4 * H, H)``, quantized already where it is to be.
        hidden_state: ``(D, B, H)`` initial state, not quantized.
        cell_state: ``(D, B, H)`` initial cell state.
        quantize_hidden: maps ``(D, B, H)`` to its quantized values; called once a step.
        cell: what computes `lstm_cell`.

    Returns:
        Hidden states before quantization, hidden states after it, and cell states, each
        ``(T, D, B, H)``.
    """
    weight = weight_hh.transpose(1, 2).contiguous()
    quantized = quantize_hidden(hidden_state)
    hidden_states, quantized_states, cell_states = [], [], []
    for gates in input_gates.unbind(0):
        gates = (gates + torch.bmm(quantized, weight)).to(cell_state.dtype)
        hidden_state, cell_state = cell(gates, cell_state)
        quantized = quantize_hidden(hidden_state)
        hidden_states.append(hidden_state)
        quantized_states.append(quantized)
        cell_states.append(cell_state)
    return torch.stack(hidden_states), torch.stack(quantized_states), torch.stack(cell_states)
