"""``encoder: quant_vgg_rnn``: ESPnet's VGG-RNN encoder with quantized LSTM and linear layers."""

from typing import Any

import torch
from espnet2.asr.encoder.abs_encoder import AbsEncoder
from espnet2.asr.encoder.vgg_rnn_encoder import VGGRNNEncoder
from typeguard import typechecked

from espnet_quant4.asr.encoder.lstm_stack import PlainLSTMStack, ProjectedLSTMStack
from espnet_quant4.asr.encoder.rnn_encoder import check_lengths, check_rnn_type, encode_through
from espnet_quant4.scheme import apply_scheme


class QuantVGGRNNEncoder(AbsEncoder):
    """VGG-RNN encoder; its LSTM and linear layers are quantized, its convolutions stay in float.

    Takes every option of ESPnet's encoder ``vgg_rnn`` and has its parameter names. The convolutions
    reduce the frame rate by 4.

    Args:
        input_size: features a frame.
        rnn_type: ``lstm``.
        bidirectional: whether layers have a backward direction.
        use_projection: whether each layer is followed by a projection.
        num_layers: number of LSTM layers.
        hidden_size: cells per direction.
        output_size: size of the output.
        dropout: probability.
        in_channel: input channels, such as 3 for features with two orders of deltas.
        scheme: a quantization scheme for the encoder alone; leave it out where
            ``model_conf: scheme`` names one for the whole model.

    Raises:
        ValueError: for another ``rnn_type``.
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
        in_channel: int = 1,
        scheme: str | dict[str, Any] | None = None,
    ):
        super().__init__()
        check_rnn_type(rnn_type)
        self._output_size = output_size
        # ESPnet's own encoder builds the convolutions and tells the width of their output.
        convolutions = VGGRNNEncoder(
            input_size,
            rnn_type,
            bidirectional=False,
            use_projection=False,
            num_layers=1,
            hidden_size=1,
            output_size=1,
            in_channel=in_channel,
        )
        vgg, following = convolutions.enc
        lstm_input_size = following.nbrnn.input_size
        stack: torch.nn.Module
        if use_projection:
            stack = ProjectedLSTMStack(
                lstm_input_size,
                num_layers,
                hidden_size,
                output_size,
                [1] * num_layers,
                dropout,
                bidirectional,
            )
        else:
            stack = PlainLSTMStack(
                lstm_input_size, num_layers, hidden_size, output_size, dropout, bidirectional
            )
        self.enc = torch.nn.ModuleList([vgg, stack])
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
        """Input frames from one output frame to the next: two poolings by two."""
        return 4

    def forward(
        self,
        xs_pad: torch.Tensor,
        ilens: torch.Tensor,
        prev_states: list[Any] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, list[Any]]:
        """Encode a padded batch ``(B, T, input_size)``; see `QuantRNNEncoder.forward`."""
        check_lengths(ilens, xs_pad.size(1))
        return encode_through(self.enc, xs_pad, ilens, prev_states)
