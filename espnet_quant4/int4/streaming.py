"""Recognition of a recording while it comes in, chunk by chunk, with carried states.

For transducers with a unidirectional ``quant_rnn`` encoder. What a chunk leaves over (samples of an
unfinished window, frames of an unfinished stack) waits for the next one, so that the encoder sees the
same frames, and puts out the same codes, as for the whole recording. What needs the whole recording is
refused by name.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from espnet_quant4.int4.context_stream import ContextStream, reach_of
from espnet_quant4.int4.features import FeatureStream, FrameWindows
from espnet_quant4.int4.greedy_search import GreedySearch, searches_greedily
from espnet_quant4.int4.recognition import check_frames, check_frontend, frame_seconds
from espnet_quant4.int4.transcript import TokenText, Transcript


class StreamingRecognizer:
    """Greedy transducer search over chunks of a waveform, in memory that only the tokens let grow.

    Args:
        recognizer: ESPnet's ``Speech2Text``, such as `espnet_quant4.int4.model_file.load` returns with
            ``beam_size=1``.

    Raises:
        ValueError: for a model that needs the whole recording, and for another search.
    """

    def __init__(self, recognizer: Any):
        check_streaming(recognizer)
        self.recognizer = recognizer
        self.model = recognizer.asr_model
        self.block = int(self.model.encoder.frames_per_output)
        self._text = TokenText(recognizer)
        self._dtype = getattr(torch, recognizer.dtype)
        self.reset()

    def reset(self) -> None:
        """Begin a new recording."""
        self._features = FeatureStream(self.model.frontend, self.model.normalize)
        preencoder = self.model.preencoder
        self._context = ContextStream(preencoder, reach_of(preencoder) or (0, 0))
        self._held: torch.Tensor | None = None
        self._encoder_states: list[Any] | None = None
        self._search = GreedySearch(self.model)
        self._ended = False

    def accept(self, samples: np.ndarray | torch.Tensor, is_last: bool = False) -> torch.Tensor:
        """Take the next samples.

        Args:
            samples: ``(n,)`` float32 or float64, full scale 1; ``n`` may be 0.
            is_last: whether no more come.

        Returns:
            ``(T, D)``: the encoder frames that are new, for those who want more than the tokens.

        Raises:
            ValueError: for samples of another shape or type, NaN or infinite samples, which leave the
                recording as it was; after the last samples; where the recording is shorter than the
                frontend's first window.
        """
        chunk = self._checked(samples)
        self._ended = is_last
        with torch.no_grad():
            feats = self._features.accept(chunk, is_last)
            encoded = self._encode(self._context.accept(feats, is_last), is_last)
        if len(encoded):
            self._search.accept(encoded)
        return encoded

    def _checked(self, samples: np.ndarray | torch.Tensor) -> torch.Tensor:
        if self._ended:
            raise ValueError(
                "samples after the last ones (is_last=True): call reset() to begin a new recording."
            )
        chunk = torch.as_tensor(samples)
        if chunk.dim() != 1 or not chunk.is_floating_point():
            raise ValueError(
                f"samples of shape {tuple(chunk.shape)} and type {chunk.dtype}; valid is one channel "
                "(n,) in float32, full scale 1. Divide int16 by 32768."
            )
        if not bool(torch.isfinite(chunk).all()):
            raise ValueError("samples hold NaN or infinite values; check the recording.")
        # A copy: what is carried over must not change with the caller's buffer.
        return chunk.to(self.recognizer.device, self._dtype, copy=True)

    def _encode(self, feats: torch.Tensor | None, is_last: bool) -> torch.Tensor:
        """Encode the frames that fill whole blocks, at the end all that are left."""
        waiting = [part for part in (self._held, feats) if part is not None]
        held = torch.cat(waiting) if waiting else torch.empty(0, 0)
        whole = len(held) if is_last else len(held) // self.block * self.block
        # A copy: a view would keep the whole chunk.
        self._held = held[whole:].clone() if len(held) > whole else None
        if self.model.encoder.output_frames(whole) == 0:
            if is_last and self._encoder_states is None:
                check_frames(self.model.encoder, whole)
            return held.new_empty(0, self.model.encoder.output_size())
        block, lengths = held[:whole].unsqueeze(0), torch.tensor([whole], device=held.device)
        out, _, self._encoder_states = self.model.encoder(block, lengths, self._encoder_states)
        encoded: torch.Tensor = out[0]
        return encoded

    def tokens(self) -> list[str]:
        """Return the tokens so far."""
        return list(self.recognizer.converter.ids2tokens(self._search.token_ids))

    def token_seconds(self, sampling_rate: int) -> list[float]:
        """Return the times at which the encoder frames begin that gave the tokens, in seconds."""
        frame = float(frame_seconds(self.model, sampling_rate) or 0.0)
        return [frame * number for number in self._search.token_frames]

    def text(self) -> str:
        """Return the text so far, without special symbols."""
        return self._text.text(self.tokens())

    def transcript(self, sampling_rate: int) -> Transcript:
        """Return what was recognized so far, with the times of tokens and words."""
        return self._text.transcript(
            self.tokens(),
            self._search.token_frames,
            frame_seconds(self.model, sampling_rate),
            self._search.score,
        )


def check_streaming(recognizer: Any) -> None:
    """Raise ValueError, with the name of what is in the way, for a recognizer that cannot stream."""
    model = recognizer.asr_model
    check_frontend(model)
    found = _in_the_way(model)
    if found is not None:
        raise ValueError(
            f"streaming needs {found}; this model reads the whole recording before it puts anything "
            "out. Leave out --chunk_seconds, or the StreamingRecognizer."
        )
    if not searches_greedily(recognizer):
        raise ValueError(
            f"streaming searches greedily, and the recognizer's search is "
            f"{recognizer.beam_search_transducer.search_algorithm.__name__} with beam_size "
            f"{recognizer.beam_search_transducer.beam_size}. Load it with beam_size=1 (--beam_size 1)."
        )
    if model.training:
        raise ValueError("the model is in training mode; call recognizer.asr_model.eval() first.")


def _in_the_way(model: Any) -> str | None:
    """Return what a model would need for streaming, None where it has all."""
    from espnet2.layers.global_mvn import GlobalMVN

    def kind(part: Any) -> str:
        return type(part).__name__

    if FrameWindows.of(model.frontend) is None:
        return f"frontend: default, not {kind(model.frontend)}"
    if model.normalize is not None and not isinstance(model.normalize, GlobalMVN):
        return f"normalize: global_mvn or none, not {kind(model.normalize)}"
    if reach_of(model.preencoder) is None:
        return f"preencoder: frame_context, linear or none, not {kind(model.preencoder)}"
    if model.postencoder is not None:
        return f"no postencoder, not {kind(model.postencoder)}"
    if not model.use_transducer_decoder or not hasattr(model.decoder, "rnn_forward"):
        return f"decoder: quant_transducer, not {kind(model.decoder)}"
    encoder = model.encoder
    if kind(encoder) != "QuantRNNEncoder":
        return f"encoder: quant_rnn, not {kind(encoder)}"
    if encoder.enc[0].bidirectional:
        return "encoder_conf: bidirectional: false"
    return None
