"""``lm: quant_seq_rnn``: ESPnet's recurrent language model with quantized layers."""

from typing import Any

import torch
from espnet2.lm.seq_rnn_lm import SequentialRNNLM
from typeguard import typechecked

from espnet_quant4.int4 import use_int4
from espnet_quant4.nn import QuantEmbedding, QuantLinear, QuantLSTM
from espnet_quant4.scheme import apply_scheme


class QuantSequentialRNNLM(SequentialRNNLM):
    """LSTM language model with quantized embedding, LSTM and output layer.

    Takes every option of ESPnet's LM ``seq_rnn`` and has its parameter names, states and scoring
    functions.

    Args:
        vocab_size: number of tokens.
        unit: size of the embedding.
        nhid: cells; ``unit`` where left out.
        nlayers: number of LSTM layers.
        dropout_rate: probability.
        tie_weights: whether the output layer shares the embedding's table.
        rnn_type: ``lstm``.
        ignore_id: id of padding.
        scheme: quantization scheme (file, bundled name or mapping); float where left out.
        inference: ``int4`` or ``emulated``, as for model ``quant_espnet``.

    Raises:
        ValueError: for another ``rnn_type`` or ``inference``.
        SchemeError: for a scheme that is not valid.
    """

    @typechecked
    def __init__(
        self,
        vocab_size: int,
        unit: int = 650,
        nhid: int | None = None,
        nlayers: int = 2,
        dropout_rate: float = 0.0,
        tie_weights: bool = False,
        rnn_type: str = "lstm",
        ignore_id: int = 0,
        scheme: str | dict[str, Any] | None = None,
        inference: str = "int4",
    ):
        if rnn_type.lower() != "lstm":
            raise ValueError(
                f"lm_conf: rnn_type: {rnn_type!r} has no quantized form; the valid choice is "
                "'lstm'. For others use ESPnet's own LM, in float."
            )
        super().__init__(
            vocab_size, unit, nhid, nlayers, dropout_rate, tie_weights, rnn_type, ignore_id
        )
        self.encoder = QuantEmbedding(vocab_size, unit, padding_idx=ignore_id)
        self.rnn = QuantLSTM(unit, self.nhid, nlayers, dropout=dropout_rate, batch_first=True)
        self.decoder = QuantLinear(self.nhid, vocab_size)
        if tie_weights:
            self.decoder.weight = self.encoder.weight
        self.rnn.reads(dropout=self.drop)
        self.decoder.reads(bound=1.0, dropout=self.drop)
        if scheme is not None:
            apply_scheme(self, scheme)
        use_int4(self, inference)

    def zero_state(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return states of zeros, each ``(layers, cells)``, in the dtype of the parameters.

        ESPnet's are float32 whatever the model is, and know LSTMs by their class.
        """
        dtype = next((p.dtype for p in self.parameters()), torch.float32)
        zeros = torch.zeros(self.nlayers, self.nhid, dtype=dtype)
        return zeros, zeros.clone()

    def batch_score(
        self, ys: torch.Tensor, states: list[Any], xs: torch.Tensor | None
    ) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
        """Score the tokens that may follow each prefix, also where ``rnn`` is an LSTM's INT4 form.

        Args:
            ys: prefixes ``(B, L)`` int64.
            states: of each prefix ``(hidden, cell)``, each ``(layers, cells)``, or None at the start.
            xs: encoder output, which is not looked at.

        Returns:
            Log probabilities ``(B, vocab_size)`` and the states after each prefix.
        """
        carried = None
        if states[0] is not None:
            hidden, cell = zip(*states, strict=True)
            carried = torch.stack(hidden, dim=1), torch.stack(cell, dim=1)
        scores, (hidden, cell) = self(ys[:, -1:], carried)
        log_probabilities = scores.squeeze(1).log_softmax(dim=-1)
        return log_probabilities, [(hidden[:, i], cell[:, i]) for i in range(len(ys))]
