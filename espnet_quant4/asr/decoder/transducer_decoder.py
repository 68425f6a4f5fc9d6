"""``decoder: quant_transducer``: ESPnet's transducer prediction network with quantized layers."""

from typing import Any

import torch
from espnet2.asr.decoder.transducer_decoder import TransducerDecoder
from typeguard import typechecked

from espnet_quant4.nn import QuantEmbedding, QuantLSTM
from espnet_quant4.scheme import apply_scheme


class QuantTransducerDecoder(TransducerDecoder):
    """Prediction network with quantized embedding and LSTM.

    Takes every option of ESPnet's decoder ``transducer`` and has its parameter names, states and
    scoring functions.

    Args:
        vocab_size: number of tokens, blank included.
        encoder_output_size: given by ESPnet to every decoder but its own transducer's; not used,
            since the joint network (built by model ``quant_espnet``) joins the two. It has no
            default: ESPnet would write that into ``decoder_conf`` and then pass it twice.
        rnn_type: ``lstm``.
        num_layers: number of LSTM layers.
        hidden_size: cells.
        embed_size: of the embedding; None: ``hidden_size``, as ESPnet's.
        dropout: probability, behind each layer.
        dropout_embed: probability, behind the embedding.
        embed_pad: id of the blank.
        scheme: a quantization scheme for the decoder alone; leave it out where
            ``model_conf: scheme`` names one for the whole model.

    Raises:
        ValueError: for another ``rnn_type``, or an ``embed_size`` below 1.
        SchemeError: for a scheme that is not valid.
    """

    @typechecked
    def __init__(
        self,
        vocab_size: int,
        encoder_output_size: int | None,
        rnn_type: str = "lstm",
        num_layers: int = 1,
        hidden_size: int = 320,
        dropout: float = 0.0,
        dropout_embed: float = 0.0,
        embed_pad: int = 0,
        embed_size: int | None = None,
        scheme: str | dict[str, Any] | None = None,
    ):
        if rnn_type != "lstm":
            raise ValueError(
                f"decoder_conf: rnn_type: {rnn_type!r} has no quantized form; the valid choice is "
                "'lstm'. For 'gru' use ESPnet's own decoder, in float."
            )
        if embed_size is not None and embed_size < 1:
            raise ValueError(
                f"decoder_conf: embed_size: {embed_size}; valid are 1 and above, or null for "
                "hidden_size."
            )
        super().__init__(
            vocab_size, rnn_type, num_layers, hidden_size, dropout, dropout_embed, embed_pad
        )
        sizes = [embed_size or hidden_size] + [hidden_size] * (num_layers - 1)
        self.embed = QuantEmbedding(vocab_size, sizes[0], padding_idx=embed_pad)
        self.decoder = torch.nn.ModuleList(
            [QuantLSTM(size, hidden_size, 1, batch_first=True) for size in sizes]
        )
        dropouts = [self.dropout_embed, *self.dropout_dec]
        for layer, (lstm, dropout) in enumerate(zip(self.decoder, dropouts, strict=False)):
            lstm.reads(bound=1.0 if layer > 0 else None, dropout=dropout)
        if scheme is not None:
            apply_scheme(self, scheme, "decoder")

    def init_state(self, batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return states of zeros, each ``(layers, B, D_dec)``, in the dtype of the parameters.

        ESPnet's are float32 whatever the model is.
        """
        hidden, cell = super().init_state(batch_size)
        dtype = next((p.dtype for p in self.parameters()), hidden.dtype)
        return hidden.to(dtype), cell.to(dtype)
