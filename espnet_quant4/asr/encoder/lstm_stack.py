"""The two LSTM stacks of ESPnet's RNN encoders, with quantized layers.

Final states are for whoever goes on from them, so they are None in training.

Module and parameter names are those of ``RNNP`` and ``RNN`` in ESPnet's
``nets/pytorch_backend/rnn/encoders.py``, so that a float checkpoint of encoder ``rnn`` or
``vgg_rnn`` initializes ``quant_rnn`` or ``quant_vgg_rnn``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from espnet_quant4.nn import QuantLinear, QuantLSTM

State = tuple[torch.Tensor, torch.Tensor]


def without_backward_state(states: Sequence[State]) -> list[State]:
    """Zero the backward direction of carried states ``(2 * layers, B, H)``.

    What carries states walks through the input in chunks, and the backward direction of the next
    chunk does not follow from that of the last one.
    """
    states = [(hidden.clone(), cell.clone()) for hidden, cell in states]
    for hidden, cell in states:
        hidden[1::2] = 0.0
        cell[1::2] = 0.0
    return states


class ProjectedLSTMStack(torch.nn.Module):
    """LSTM layers with a linear projection, subsampling and tanh behind each (``RNNP``).

    Args:
        input_size: features a frame.
        num_layers: number of LSTM layers.
        hidden_size: cells per direction.
        output_size: size of every projection.
        subsample: frame rate divisor behind each layer, ``num_layers`` values.
        dropout: probability, behind each projection but the last.
        bidirectional: whether layers have a backward direction.
    """

    #: Behind the last projection there is no tanh.
    output_bound: float | None = None

    def __init__(
        self,
        input_size: int,
        num_layers: int,
        hidden_size: int,
        output_size: int,
        subsample: Sequence[int],
        dropout: float,
        bidirectional: bool,
    ):
        super().__init__()
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.subsample = [int(divisor) for divisor in subsample]
        self.dropout = torch.nn.Dropout(dropout)
        directions = 2 if bidirectional else 1
        for layer in range(num_layers):
            lstm = QuantLSTM(
                input_size if layer == 0 else output_size,
                hidden_size,
                batch_first=True,
                bidirectional=bidirectional,
            )
            if layer > 0:
                lstm.reads(bound=1.0)  # a tanh
            projection = QuantLinear(directions * hidden_size, output_size)
            projection.reads(bound=1.0)
            setattr(self, self._lstm_name(layer), lstm)
            setattr(self, f"bt{layer}", projection)

    def _lstm_name(self, layer: int) -> str:
        return f"{'birnn' if self.bidirectional else 'rnn'}{layer}"

    def forward(
        self,
        xs_pad: torch.Tensor,
        ilens: torch.Tensor,
        prev_state: Sequence[State] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, list[State | None]]:
        """Map ``(B, T, input_size)`` to ``(B, T', output_size)``, its lengths and layer states."""
        if self.bidirectional and prev_state is not None:
            prev_state = without_backward_state(prev_state)
        states = []
        for layer in range(self.num_layers):
            lstm = getattr(self, self._lstm_name(layer))
            hx = None if prev_state is None else prev_state[layer]
            xs_pad, state = lstm(xs_pad, hx, lengths=ilens, final_states=not self.training)
            states.append(state)
            divisor = self.subsample[layer]
            if divisor > 1:
                xs_pad = xs_pad[:, ::divisor]
                ilens = torch.div(ilens + 1, divisor, rounding_mode="floor")
            xs_pad = getattr(self, f"bt{layer}")(xs_pad)
            if layer < self.num_layers - 1:
                xs_pad = torch.tanh(self.dropout(xs_pad))
        return xs_pad[:, : int(ilens.max())], ilens, states


class PlainLSTMStack(torch.nn.Module):
    """LSTM layers one upon the other, one linear layer and tanh at the end (``RNN``).

    Args:
        input_size: features a frame.
        num_layers: number of LSTM layers.
        hidden_size: cells per direction.
        output_size: size of the last linear layer.
        dropout: probability, between LSTM layers.
        bidirectional: whether layers have a backward direction.
    """

    #: A tanh comes last.
    output_bound: float | None = 1.0

    def __init__(
        self,
        input_size: int,
        num_layers: int,
        hidden_size: int,
        output_size: int,
        dropout: float,
        bidirectional: bool,
    ):
        super().__init__()
        self.bidirectional = bidirectional
        self.nbrnn = QuantLSTM(
            input_size,
            hidden_size,
            num_layers,
            batch_first=True,
            dropout=dropout if num_layers > 1 else 0.0,
            bidirectional=bidirectional,
        )
        self.l_last = QuantLinear((2 if bidirectional else 1) * hidden_size, output_size)
        self.l_last.reads(bound=1.0)

    def forward(
        self, xs_pad: torch.Tensor, ilens: torch.Tensor, prev_state: State | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, State | None]:
        """Map ``(B, T, input_size)`` to ``(B, T, output_size)``, its lengths and final states."""
        if self.bidirectional and prev_state is not None:
            (prev_state,) = without_backward_state([prev_state])
        xs_pad, states = self.nbrnn(
            xs_pad, prev_state, lengths=ilens, final_states=not self.training
        )
        return torch.tanh(self.l_last(xs_pad)), ilens, states
