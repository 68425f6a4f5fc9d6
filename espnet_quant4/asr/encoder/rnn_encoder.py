"""``encoder: quant_rnn``: ESPnet's RNN encoder with quantized LSTM and linear layers."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from espnet2.asr.encoder.abs_encoder import AbsEncoder
from typeguard import typechecked

from espnet_quant4.asr.encoder.lstm_stack import PlainLSTMStack, ProjectedLSTMStack
from espnet_quant4.asr.frame_stacking import stack_frames
from espnet_quant4.scheme import apply_scheme


def check_rnn_type(rnn_type: str) -> None:
    """Raise ValueError for a recurrent layer that has no quantized form."""
    if rnn_type != "lstm":
        raise ValueError(
            f"encoder_conf: rnn_type: {rnn_type!r} has no quantized form; the valid choice is "
            "'lstm'. For 'gru' use ESPnet's own encoder, in float."
        )


def check_lengths(ilens: torch.Tensor, frames: int) -> None:
    """Raise ValueError where a sequence is empty or longer than its padded batch.

    Args:
        ilens: ``(B,)`` int64.
        frames: length of the padded batch.
    """
    wrong = ((ilens < 1) | (ilens > frames)).nonzero().flatten().tolist()
    if wrong:
        raise ValueError(
            f"encoder input lengths {[int(ilens[i]) for i in wrong]} at batch positions {wrong}: "
            f"valid are 1 to {frames} frames. Remove empty or too short utterances from the data "
            "(recipes do so in stage 4)."
        )


class QuantRNNEncoder(AbsEncoder):
    """RNN encoder with quantized layers.

    Takes every option of ESPnet's encoder ``rnn`` and has its parameter names.

    Args:
        input_size: features a frame.
        rnn_type: ``lstm``.
        bidirectional: whether layers have a backward direction.
        use_projection: whether each layer is followed by a projection and subsampling.
        num_layers: number of LSTM layers.
        hidden_size: cells per direction.
        output_size: size of the output.
        dropout: probability.
        subsample: frame rate divisors behind the layers; used with ``use_projection``.
        stack_frames: how many input frames are joined into one before the first layer.
        scheme: a quantization scheme (file, bundled name or mapping) for the encoder alone. Leave
            it out where ``model_conf: scheme`` names one for the whole model.

    Raises:
        ValueError: for another ``rnn_type`` or ``stack_frames`` below 1.
        SchemeError: for a scheme that is not valid.
    """

    @typechecked
    def __init__(
        self,
        input_size: int,
        rnn_type: str = "lstm",
        bidirectional: bool = True,
        use_projection: bool = True,
        num_layers: int = 4,
        hidden_size: int = 320,
        output_size: int = 320,
        dropout: float = 0.0,
        subsample: Sequence[int] | None = (2, 2, 1, 1),
        stack_frames: int = 1,
        scheme: str | dict[str, Any] | None = None,
    ):
        super().__init__()
        check_rnn_type(rnn_type)
        if stack_frames < 1:
            raise ValueError(f"encoder_conf: stack_frames: {stack_frames}; valid are 1 and above.")
        self._output_size = output_size
        self.stack_frames = stack_frames
        input_size *= stack_frames
        stack: torch.nn.Module
        if use_projection:
            divisors = list(subsample or ())[:num_layers]
            divisors += [1] * (num_layers - len(divisors))
            stack = ProjectedLSTMStack(
                input_size, num_layers, hidden_size, output_size, divisors, dropout, bidirectional
            )
        else:
            stack = PlainLSTMStack(
                input_size, num_layers, hidden_size, output_size, dropout, bidirectional
            )
        self.enc = torch.nn.ModuleList([stack])
        if scheme is not None:
            apply_scheme(self, scheme, "encoder")

    def output_size(self) -> int:
        return self._output_size

    @property
    def output_bound(self) -> float | None:
        """Largest magnitude of the output by construction; None where nothing bounds it."""
        bound: float | None = self.enc[-1].output_bound
        return bound

    @property
    def frames_per_output(self) -> int:
        """Input frames from one output frame to the next."""
        return self.stack_frames * math.prod(self._divisors())

    def output_frames(self, frames: int) -> int:
        """Return the number of output frames for so many input frames.

        ESPnet rounds up where a layer divides by 2, and to the nearest where it divides by 3.
        """
        frames = -(-frames // self.stack_frames)
        for divisor in self._divisors():
            frames = frames if divisor == 1 else (frames + 1) // divisor
        return frames

    def _divisors(self) -> Sequence[int]:
        divisors: Sequence[int] = getattr(self.enc[0], "subsample", ())
        return divisors

    def forward(
        self,
        xs_pad: torch.Tensor,
        ilens: torch.Tensor,
        prev_states: list[Any] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, list[Any]]:
        """Encode a padded batch.

        Args:
            xs_pad: ``(B, T, input_size)`` float32.
            ilens: ``(B,)`` int64, each in ``1..T``.
            prev_states: what an earlier call returned as states, to go on from there.

        Returns:
            ``(B, T', output_size)`` with zeros past each length, its lengths, and the states.

        Raises:
            ValueError: for a length of 0 or over ``T``.
        """
        check_lengths(ilens, xs_pad.size(1))
        xs_pad, ilens = stack_frames(xs_pad, ilens, self.stack_frames)
        return encode_through(self.enc, xs_pad, ilens, prev_states)


def encode_through(
    layers: torch.nn.ModuleList,
    xs_pad: torch.Tensor,
    ilens: torch.Tensor,
    prev_states: list[Any] | None,
) -> tuple[torch.Tensor, torch.Tensor, list[Any]]:
    """Run stacks of layers in turn and zero what lies past the lengths."""
    if prev_states is None:
        prev_states = [None] * len(layers)
    if len(prev_states) != len(layers):
        raise ValueError(
            f"prev_states holds {len(prev_states)} entries; valid is {len(layers)}, as returned."
        )
    states = []
    for layer, prev_state in zip(layers, prev_states, strict=False):
        xs_pad, ilens, state = layer(xs_pad, ilens, prev_state=prev_state)
        # ESPnet's convolutions return lengths as a list.
        ilens = torch.as_tensor(ilens)
        states.append(state)
    time = torch.arange(xs_pad.size(1), device=xs_pad.device)
    padding = time >= ilens.to(xs_pad.device).unsqueeze(1)
    return xs_pad.masked_fill(padding.unsqueeze(2), 0.0), ilens, states
