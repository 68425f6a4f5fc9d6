"""``model: hybrid``: a network that tells the state of a hidden Markov model at each frame."""

from typing import Any

import torch
from espnet2.asr.encoder.abs_encoder import AbsEncoder
from espnet2.asr.frontend.abs_frontend import AbsFrontend
from espnet2.asr.preencoder.abs_preencoder import AbsPreEncoder
from espnet2.asr.specaug.abs_specaug import AbsSpecAug
from espnet2.layers.abs_normalize import AbsNormalize
from espnet2.torch_utils.device_funcs import force_gatherable
from espnet2.train.abs_espnet_model import AbsESPnetModel
from typeguard import typechecked

from espnet_quant4.asr.speech_check import check_speech
from espnet_quant4.hybrid.model.chunks import ChunkCutter
from espnet_quant4.hybrid.model.criterion import HybridCriterion
from espnet_quant4.hybrid.model.frame_targets import frame_targets
from espnet_quant4.int4 import use_int4
from espnet_quant4.int4.features import features_in_pieces, is_long_recording
from espnet_quant4.nn import QuantLinear, bound_of_activation
from espnet_quant4.quantizers.base import widened
from espnet_quant4.scheme import apply_scheme

ACTIVATIONS: dict[str, type[torch.nn.Module]] = {
    "none": torch.nn.Identity,
    "relu": torch.nn.ReLU,
    "tanh": torch.nn.Tanh,
}


class ESPnetHybridModel(AbsESPnetModel):
    """Posterior probabilities of pdf ids (tied HMM states, senones) at each frame.

    Frontend, augmentation, normalization and pre-encoder as in ESPnet's ASR model; an encoder that
    keeps the frame rate; a narrow linear layer, the bottleneck of Fasoli et al. ("4-bit Quantization
    of LSTM-based Speech Recognition Models", 2021); a linear layer with one output a pdf id.

    Args:
        num_pdfs: number of pdf ids.
        frontend: None where the data are features.
        specaug: without time warping, which moves frames against their targets.
        normalize: of features.
        preencoder: such as ``frame_context``.
        encoder: one output a frame, or one for every ``frames_per_step`` frames.
        subsample: every n-th frame is seen and scored, with the target of that frame.
        frames_per_step: how many consecutive frames each output of the encoder scores, with that many
            times ``num_pdfs`` outputs (Vanhoucke et al., "Multiframe deep neural networks for acoustic
            modeling", 2013): the LSTMs run that many times slower than the frames, and the search
            still gets every frame. Wants an encoder of that rate, such as ``encoder_conf:
            stack_frames`` of the same number.
        chunk_conf: options of `espnet_quant4.hybrid.model.chunks.ChunkCutter`; in training only.
        bottleneck_size: None for no bottleneck.
        bottleneck_activation: ``none``, ``relu`` or ``tanh``.
        label_smoothing: of the cross-entropy, in training only.
        criterion: ``ce``, or ``lfmmi`` with ``lfmmi_conf``.
        lfmmi_conf: options of the LF-MMI loss.
        ce_weight: of the cross-entropy that is added to LF-MMI.
        scheme: quantization scheme (file, bundled name or mapping) for the whole model.
        inference: ``int4`` or ``emulated``; see `espnet_quant4.int4.use_int4`.

    Raises:
        ValueError: for an option that is not valid.
        SchemeError: for a scheme that is not valid, or that the encoder has already.
    """

    @typechecked
    def __init__(
        self,
        num_pdfs: int,
        frontend: AbsFrontend | None,
        specaug: AbsSpecAug | None,
        normalize: AbsNormalize | None,
        preencoder: AbsPreEncoder | None,
        encoder: AbsEncoder,
        subsample: int = 1,
        frames_per_step: int = 1,
        chunk_conf: dict[str, Any] | None = None,
        bottleneck_size: int | None = 256,
        bottleneck_activation: str = "none",
        label_smoothing: float = 0.0,
        criterion: str = "ce",
        lfmmi_conf: dict[str, Any] | None = None,
        ce_weight: float = 0.1,
        scheme: str | dict[str, Any] | None = None,
        inference: str = "int4",
    ):
        super().__init__()
        if num_pdfs < 1:
            raise ValueError(f"num_pdfs: {num_pdfs}; valid are 1 and above.")
        for name, value in {"subsample": subsample, "frames_per_step": frames_per_step}.items():
            if value < 1:
                raise ValueError(f"model_conf: {name}: {value}; valid are 1 and above.")
        if bottleneck_size is not None and bottleneck_size < 1:
            raise ValueError(
                f"model_conf: bottleneck_size: {bottleneck_size}; valid are 1 and above, or null "
                "for no bottleneck."
            )
        if bottleneck_activation not in ACTIVATIONS:
            raise ValueError(
                f"model_conf: bottleneck_activation: {bottleneck_activation!r}; valid: "
                f"{', '.join(ACTIVATIONS)}."
            )
        if getattr(specaug, "apply_time_warp", False):
            raise ValueError(
                "specaug_conf: apply_time_warp: true moves frames against their targets. Set it to "
                "false; masks in time and frequency may stay."
            )
        self.num_pdfs = num_pdfs
        self.subsample = subsample
        self.frames_per_step = frames_per_step
        self.chunks = ChunkCutter(**(chunk_conf or {}))
        self.criterion = HybridCriterion(criterion, label_smoothing, lfmmi_conf, ce_weight)
        if self.criterion.is_sequential and self.chunks.is_active:
            raise ValueError(
                f"model_conf: criterion: {criterion} needs whole utterances. Set chunk_conf: "
                "{mode: none}."
            )
        self.frontend = frontend
        self.specaug = specaug
        self.normalize = normalize
        self.preencoder = preencoder
        self.encoder = encoder
        size = encoder.output_size()
        bound = getattr(encoder, "output_bound", None)
        self.bottleneck: QuantLinear | None = None
        if bottleneck_size is not None:
            self.bottleneck = QuantLinear(size, bottleneck_size)
            self.bottleneck.reads(bound=bound)
            self.activation = ACTIVATIONS[bottleneck_activation]()
            size, bound = bottleneck_size, bound_of_activation(self.activation)
        self.output = QuantLinear(size, frames_per_step * num_pdfs)
        self.output.reads(bound=bound)
        if scheme is not None:
            apply_scheme(self, scheme)
        use_int4(self, inference)

    def forward(
        self,
        speech: torch.Tensor,
        speech_lengths: torch.Tensor,
        pdf_ids: torch.Tensor,
        pdf_ids_lengths: torch.Tensor,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        """Compute the loss of a batch.

        Args:
            speech: ``(B, samples)`` float32, or features ``(B, T, F)`` where there is no frontend.
            speech_lengths: ``(B,)`` int64.
            pdf_ids: ``(B, L)`` int64, one a frame of the features.
            pdf_ids_lengths: ``(B,)`` int64.
            kwargs: ``utt_id``, the names of the utterances, for messages.

        Returns:
            The loss, its mean over frames; statistics ``loss``, ``acc`` (frames whose best pdf id is
            the target) and those of the criterion; the weight, which is the number of frames.

        Raises:
            ValueError: for speech that cannot be recognized, targets that do not fit it, and an
                encoder that changes the frame rate.
        """
        feats, lengths = self._input_of_encoder(speech, speech_lengths)
        pdf_ids = pdf_ids[:, : int(pdf_ids_lengths.max())]
        targets = frame_targets(
            pdf_ids, pdf_ids_lengths, lengths, self.num_pdfs, kwargs.get("utt_id")
        )
        feats, lengths = self._every_nth(feats, lengths)
        targets = targets[:, :: self.subsample]
        if self.training:
            feats, lengths, targets = self.chunks.cut(feats, lengths, targets)
        encoded = self._through_encoder(feats, lengths)
        scored = targets >= 0
        logits = self._logits_of(encoded, scored)
        loss, stats = self.criterion(logits, targets, scored, lengths)
        with torch.no_grad():
            stats["acc"] = (logits.argmax(1) == targets[scored]).float().mean()
        stats["loss"] = loss.detach()
        gathered: tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor] = force_gatherable(
            (loss, stats, logits.size(0)), loss.device
        )
        return gathered

    def collect_feats(
        self, speech: torch.Tensor, speech_lengths: torch.Tensor, **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """Return the features that statistics for ``normalize: global_mvn`` are made of."""
        feats, feats_lengths = self._extract_feats(speech, speech_lengths)
        return {"feats": feats, "feats_lengths": feats_lengths}

    def classify(self, encoded: torch.Tensor) -> torch.Tensor:
        """Map encoder states ``(..., D)`` to logits ``(..., frames_per_step, num_pdfs)``.

        In float32; in float64 where the model is."""
        if self.bottleneck is not None:
            encoded = self.activation(self.bottleneck(encoded))
        logits: torch.Tensor = self.output(encoded)
        return widened(logits).unflatten(-1, (self.frames_per_step, self.num_pdfs))

    def log_posteriors(
        self, speech: torch.Tensor, speech_lengths: torch.Tensor, repeat_frames: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Score whole utterances.

        Args:
            speech: as in `forward`.
            speech_lengths: ``(B,)`` int64.
            repeat_frames: where ``subsample`` passes over frames, whether they get the posteriors of
                the frame before, so that there is a row for each frame of the features.

        Returns:
            Natural logarithms ``(B, T, num_pdfs)`` float32, and the lengths ``(B,)``.
        """
        feats, frames = self._input_of_encoder(speech, speech_lengths)
        seen, lengths = self._every_nth(feats, frames)
        logits = self.classify(self._through_encoder(seen, lengths)).flatten(1, 2)
        log_posteriors = logits[:, : seen.size(1)].log_softmax(dim=-1)
        if not repeat_frames:
            return log_posteriors, lengths
        repeated = log_posteriors.repeat_interleave(self.subsample, dim=1)
        return repeated[:, : feats.size(1)], frames

    def _extract_feats(
        self, speech: torch.Tensor, speech_lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # Under DataParallel a part of a batch may be padded to the length of another part.
        speech = speech[:, : int(speech_lengths.max())]
        if self.frontend is None:
            return speech, speech_lengths
        feats: tuple[torch.Tensor, torch.Tensor] = self.frontend(speech, speech_lengths)
        return feats

    def _input_of_encoder(
        self, speech: torch.Tensor, speech_lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        check_speech(speech, speech_lengths, self.frontend, self.training)
        if is_long_recording(self, speech, speech_lengths):
            feats = features_in_pieces(self.frontend, self.normalize, speech)
            lengths = torch.tensor([feats.size(1)], device=feats.device)
        else:
            feats, lengths = self._normalized_feats(speech, speech_lengths)
        if self.preencoder is not None:
            feats, lengths = self.preencoder(feats, lengths)
        return feats, lengths

    def _normalized_feats(
        self, speech: torch.Tensor, speech_lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        feats, lengths = self._extract_feats(speech, speech_lengths)
        if self.frontend is None and self.normalize is not None:
            # Normalization works in place, here on what the caller gave.
            feats = feats.clone()
        if self.specaug is not None and self.training:
            feats, lengths = self.specaug(feats, lengths)
        if self.normalize is not None:
            feats, lengths = self.normalize(feats, lengths)
        return feats, lengths

    def _every_nth(
        self, feats: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.subsample == 1:
            return feats, lengths
        lengths = torch.div(lengths + self.subsample - 1, self.subsample, rounding_mode="floor")
        return feats[:, :: self.subsample], lengths

    def _through_encoder(self, feats: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the encoder's outputs, one for every ``frames_per_step`` frames."""
        encoded: torch.Tensor
        encoded, encoded_lengths, _ = self.encoder(feats, lengths)
        steps = torch.div(
            lengths + self.frames_per_step - 1, self.frames_per_step, rounding_mode="floor"
        )
        if not torch.equal(torch.as_tensor(encoded_lengths).cpu(), steps.cpu()):
            raise ValueError(
                f"the encoder {type(self.encoder).__name__} turned {int(lengths.max())} frames into "
                f"{int(max(encoded_lengths))}; with model_conf: frames_per_step: "
                f"{self.frames_per_step} a hybrid model needs {int(steps.max())}. Set encoder_conf: "
                f"subsample: null and stack_frames: {self.frames_per_step}; to score every n-th "
                "frame only, set model_conf: subsample: n."
            )
        return encoded

    def _logits_of(self, encoded: torch.Tensor, scored: torch.Tensor) -> torch.Tensor:
        """Return the logits ``(frames, num_pdfs)`` of the frames that have a target."""
        surplus = -scored.size(1) % self.frames_per_step
        of_steps = torch.nn.functional.pad(scored, (0, surplus))
        of_steps = of_steps.unflatten(1, (-1, self.frames_per_step))
        # Neither the loss nor the statistics of quantizers are about frames without a target.
        counted = of_steps.any(2)
        return self.classify(encoded[counted])[of_steps[counted]]
