"""``model: quant_espnet``: ESPnet's ASR model, quantized, with a choice of transducer loss."""

from typing import Any

import torch
from espnet2.asr.ctc import CTC
from espnet2.asr.decoder.abs_decoder import AbsDecoder
from espnet2.asr.decoder.transducer_decoder import TransducerDecoder
from espnet2.asr.encoder.abs_encoder import AbsEncoder
from espnet2.asr.espnet_model import ESPnetASRModel
from espnet2.asr.frontend.abs_frontend import AbsFrontend
from espnet2.asr.postencoder.abs_postencoder import AbsPostEncoder
from espnet2.asr.preencoder.abs_preencoder import AbsPreEncoder
from espnet2.asr.specaug.abs_specaug import AbsSpecAug
from espnet2.asr.transducer.error_calculator import ErrorCalculatorTransducer
from espnet2.asr_transducer.utils import get_transducer_task_io
from espnet2.layers.abs_normalize import AbsNormalize
from typeguard import typechecked

from espnet_quant4.asr.joint_network import QuantJointNetwork, quantize_joint_network
from espnet_quant4.asr.speech_check import check_speech
from espnet_quant4.asr.transducer_loss import build_transducer_loss
from espnet_quant4.int4 import use_int4
from espnet_quant4.int4.features import features_in_pieces, is_long_recording
from espnet_quant4.nn import QuantLinear
from espnet_quant4.scheme import apply_scheme


class QuantESPnetASRModel(ESPnetASRModel):
    """ASR model whose LSTMs, linear layers and embedding are quantized by one scheme.

    With a transducer decoder (``quant_transducer`` or ESPnet's ``transducer``) it builds the joint
    network itself, and the loss that is asked for instead of ``warprnnt_pytorch``. With any other
    decoder, or none, it behaves as ESPnet's model does.

    Args beyond those of ``ESPnetASRModel``:
        scheme: quantization scheme (file, bundled name or mapping) for the whole model; float where
            left out.
        transducer_loss: ``torchaudio``, ``k2``, ``warprnnt`` or ``numba``.
        joint_network_conf: options of the joint network; ``joint_net_conf`` at the top of ESPnet's
            configuration is handed on here.
        inference: ``int4``: in evaluation without gradients, on the CPU, quantized layers compute on
            codes; ``emulated``: in float, as in training. The results are the same but for rounding;
            the environment variable ``ESPNET_QUANT4_INFERENCE`` overrules it.

    Raises:
        ValueError, ImportError: for a loss that is unknown or not installed, and for another
            ``inference``.
        SchemeError: for a scheme that is not valid, or that the encoder or decoder has already.
    """

    @typechecked
    def __init__(
        self,
        vocab_size: int,
        token_list: tuple[str, ...] | list[str],
        frontend: AbsFrontend | None,
        specaug: AbsSpecAug | None,
        normalize: AbsNormalize | None,
        preencoder: AbsPreEncoder | None,
        encoder: AbsEncoder | None,
        postencoder: AbsPostEncoder | None,
        decoder: AbsDecoder | None,
        ctc: CTC,
        joint_network: torch.nn.Module | None,
        scheme: str | dict[str, Any] | None = None,
        transducer_loss: str = "torchaudio",
        joint_network_conf: dict[str, Any] | None = None,
        inference: str = "int4",
        report_cer: bool = True,
        report_wer: bool = True,
        sym_space: str = "<space>",
        sym_blank: str = "<blank>",
        **kwargs: Any,
    ):
        # ESPnet's constructor would import warprnnt_pytorch if it were handed a joint network.
        super().__init__(
            vocab_size=vocab_size,
            token_list=token_list,
            frontend=frontend,
            specaug=specaug,
            normalize=normalize,
            preencoder=preencoder,
            encoder=encoder,
            postencoder=postencoder,
            decoder=decoder,
            ctc=ctc,
            joint_network=None,
            report_cer=report_cer,
            report_wer=report_wer,
            sym_space=sym_space,
            sym_blank=sym_blank,
            **kwargs,
        )
        if self.ctc is not None:
            self.ctc.ctc_lo = QuantLinear.from_float(self.ctc.ctc_lo)
        if isinstance(decoder, TransducerDecoder):
            joint = self._become_transducer(
                decoder, joint_network, joint_network_conf or {}, transducer_loss
            )
            if report_cer or report_wer:
                self.error_calculator_trans = ErrorCalculatorTransducer(
                    decoder,
                    joint,
                    list(token_list),
                    sym_space,
                    sym_blank,
                    report_cer=report_cer,
                    report_wer=report_wer,
                )
        elif joint_network_conf is not None:
            raise ValueError(
                f"model_conf: joint_network_conf is given, but the decoder is "
                f"{type(decoder).__name__}; a joint network belongs to decoder: quant_transducer."
            )
        self._say_what_layers_read()
        if scheme is not None:
            apply_scheme(self, scheme)
        use_int4(self, inference)

    def _become_transducer(
        self,
        decoder: TransducerDecoder,
        joint_network: torch.nn.Module | None,
        joint_network_conf: dict[str, Any],
        transducer_loss: str,
    ) -> torch.nn.Module:
        """Set up what ESPnet's constructor does for a transducer; return the joint network."""
        self.use_transducer_decoder = True
        # ESPnet's constructor took the decoder for an attention decoder.
        self.decoder = decoder
        del self.criterion_att
        self.error_calculator_trans = None
        if self.encoder is None:
            raise ValueError("encoder: none; a transducer needs one, such as encoder: quant_rnn.")
        encoder_size = self.encoder.output_size()
        if joint_network is None:
            joint_network = QuantJointNetwork(
                self.vocab_size, encoder_size, decoder.dunits, **joint_network_conf
            )
        else:
            quantize_joint_network(joint_network)
        self.joint_network = joint_network
        self.criterion_transducer = build_transducer_loss(
            transducer_loss, self.blank_id, self.vocab_size, encoder_size, decoder.dunits
        )
        return joint_network

    def _say_what_layers_read(self) -> None:
        """Tell layers at the seams between this model's parts what their input is."""
        bound = None
        if self.postencoder is None:
            bound = getattr(self.encoder, "output_bound", None)
        if self.ctc is not None:
            # ESPnet's CTC applies its dropout whenever it computes a loss, in evaluation too.
            kept = 1.0 - self.ctc.dropout_rate
            self.ctc.ctc_lo.reads(bound=bound / kept if bound is not None and kept > 0 else None)
        if self.use_transducer_decoder:
            self.joint_network.lin_enc.reads(bound=bound)
            # An LSTM's or GRU's states.
            self.joint_network.lin_dec.reads(bound=1.0, dropout=self.decoder.dropout_dec[-1])

    def encode(
        self, speech: torch.Tensor, speech_lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Extract features and encode them.

        Args:
            speech: ``(B, samples)`` float32, or features ``(B, T, F)`` where there is no frontend.
            speech_lengths: ``(B,)`` int64.

        Returns:
            ``(B, T', D)`` and its lengths ``(B,)``.

        Raises:
            ValueError: for an empty utterance, and where all are too short for the frontend's first
                window; in evaluation also for NaN or infinite input, which
                in training reaches the loss, where ESPnet's trainer skips and counts the step.
        """
        check_speech(speech, speech_lengths, self.frontend, self.training)
        # Other encoders may want more than features, such as the CTC layer.
        known = hasattr(self.encoder, "frames_per_output")
        if known and is_long_recording(self, speech, speech_lengths):
            return self._encode_long(speech)
        return super().encode(speech, speech_lengths)

    def _encode_long(self, speech: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode one recording ``(1, samples)`` as ESPnet does, with features made in pieces."""
        feats = features_in_pieces(self.frontend, self.normalize, speech)
        lengths = torch.tensor([feats.size(1)], device=feats.device)
        if self.preencoder is not None:
            feats, lengths = self.preencoder(feats, lengths)
        encoded, lengths, _ = self.encoder(feats, lengths)
        if self.postencoder is not None:
            encoded, lengths = self.postencoder(encoded, lengths)
        return encoded, lengths

    def _calc_transducer_loss(
        self, encoder_out: torch.Tensor, encoder_out_lens: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, float | None, float | None]:
        """Compute the transducer loss.

        Args:
            encoder_out: ``(B, T, D_enc)``.
            encoder_out_lens: ``(B,)``.
            labels: ``(B, U)`` int64, padded with ``ignore_id``.

        Returns:
            The loss, and in validation the character and word error rates if they are reported.
        """
        decoder_in, targets, frame_counts, target_lengths = get_transducer_task_io(
            labels, encoder_out_lens, ignore_id=self.ignore_id, blank_id=self.blank_id
        )
        self.decoder.set_device(encoder_out.device)
        loss = self.criterion_transducer(
            self.joint_network,
            encoder_out,
            self.decoder(decoder_in),
            targets,
            frame_counts,
            target_lengths,
        )
        cer, wer = None, None
        if not self.training and self.error_calculator_trans is not None:
            cer, wer = self.error_calculator_trans(encoder_out, targets)
        return loss, cer, wer
