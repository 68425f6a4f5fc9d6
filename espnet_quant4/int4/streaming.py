"""Recognition of a recording while it comes in, chunk by chunk, with carried states.

For transducers with a unidirectional ``quant_rnn`` encoder without subsampling. What a chunk leaves
over (samples of an unfinished window, frames of an unfinished stack) waits for the next one, so that
the encoder sees the same frames, and puts out the same codes, as for the whole recording.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


class StreamingRecognizer:
    """Greedy transducer search over chunks of a waveform.

    Args:
        recognizer: ESPnet's ``Speech2Text``, such as `espnet_quant4.int4.model_file.load` returns.

    Raises:
        ValueError: for a model that needs the whole recording.
    """

    def __init__(self, recognizer: Any):
        self.recognizer = recognizer
        self.model = recognizer.asr_model
        stft = getattr(getattr(self.model, "frontend", None), "stft", None)
        if stft is None or not self.model.use_transducer_decoder:
            raise ValueError("streaming needs frontend: default and decoder: quant_transducer.")
        stack = self.model.encoder.enc[0] if hasattr(self.model.encoder, "stack_frames") else None
        if stack is None or stack.bidirectional or max(getattr(stack, "subsample", [1])) > 1:
            raise ValueError(
                "streaming needs encoder: quant_rnn with bidirectional: false and no subsampling; "
                "this model reads the whole recording before it puts anything out. Leave out "
                "--chunk_seconds."
            )
        if not getattr(stft, "center", True):
            raise ValueError("streaming needs frontend_conf: center: true, ESPnet's default.")
        self.window, self.hop = int(stft.n_fft), int(stft.hop_length)
        self.stack_frames = int(self.model.encoder.stack_frames)
        self.reset()

    def reset(self) -> None:
        """Begin a new recording."""
        self._samples = torch.zeros(0)
        self._first_sample = 0  # of the recording, at the start of the buffer
        self._frames = 0  # features that were made so far
        self._features: torch.Tensor | None = None
        self._encoder_states: list[Any] | None = None
        self._encoded = 0
        self._token_ids: list[int] = []
        self._token_frames: list[int] = []
        self.encoder_out: list[torch.Tensor] = []
        self._decoder_state: Any = None
        self._decoder_out: torch.Tensor | None = None

    def accept(self, samples: np.ndarray, is_last: bool = False) -> None:
        """Take the next samples ``(n,)`` float32; ``is_last`` where no more come."""
        with torch.no_grad():
            self._accept(samples, is_last)

    def _accept(self, samples: np.ndarray, is_last: bool) -> None:
        self._samples = torch.cat([self._samples, torch.as_tensor(samples, dtype=torch.float32)])
        features = self._new_features(is_last)
        if features is not None:
            held = features if self._features is None else torch.cat([self._features, features])
            whole = len(held) if is_last else len(held) // self.stack_frames * self.stack_frames
            self._features = held[whole:]
            if whole:
                self._encode(held[:whole])

    def _new_features(self, is_last: bool) -> torch.Tensor | None:
        """Return the normalized features of all windows that the samples so far fill."""
        half = self.window // 2
        total = self._first_sample + len(self._samples)
        # Frame t is centred at sample t * hop; the first and last windows are mirrored at the ends.
        ready = total // self.hop + 1 if is_last else max(0, (total - half) // self.hop + 1)
        if ready <= self._frames or (is_last and total <= half):
            return None
        # The buffer starts at a multiple of the hop, so its frames are the recording's.
        speech = self._samples.unsqueeze(0)
        if speech.size(1) <= half:
            return None
        feats, lengths = self.model._extract_feats(speech, torch.tensor([speech.size(1)]))
        if self.model.normalize is not None:
            feats, lengths = self.model.normalize(feats, lengths)
        offset = self._first_sample // self.hop
        found = feats[0, self._frames - offset : ready - offset]
        self._frames = ready
        # Keep what the next frame's window reaches back to.
        keep_from = max(0, (self._frames * self.hop - self.window) // self.hop * self.hop)
        if keep_from > self._first_sample:
            self._samples = self._samples[keep_from - self._first_sample :]
            self._first_sample = keep_from
        return found

    def _encode(self, features: torch.Tensor) -> None:
        out, _, self._encoder_states = self.model.encoder(
            features.unsqueeze(0), torch.tensor([len(features)]), self._encoder_states
        )
        self.encoder_out.append(out[0])
        for frame in out[0]:
            self._search(frame)
            self._encoded += 1

    def _search(self, frame: torch.Tensor) -> None:
        decoder, joint_network = self.model.decoder, self.model.joint_network
        if self._decoder_out is None:
            decoder.set_device(frame.device)
            self._decoder_state = decoder.init_state(1)
            self._step(self.model.blank_id)
        # As ESPnet's greedy search: at most one token a frame.
        token = int(joint_network(frame, self._decoder_out).argmax())
        if token != self.model.blank_id:
            self._token_ids.append(token)
            self._token_frames.append(self._encoded)
            self._step(token)

    def _step(self, token: int) -> None:
        decoder = self.model.decoder
        embedded = decoder.embed(torch.tensor([[token]]))
        out, self._decoder_state = decoder.rnn_forward(embedded, self._decoder_state)
        self._decoder_out = out[0, 0]

    def tokens(self) -> list[str]:
        """Return the tokens so far."""
        return list(self.recognizer.converter.ids2tokens(self._token_ids))

    def token_seconds(self, sampling_rate: int) -> list[float]:
        """Return the times at which the encoder frames begin that gave the tokens, in seconds."""
        frame = self.hop * self.stack_frames / sampling_rate
        return [frame * number for number in self._token_frames]

    def text(self) -> str:
        """Return the text so far."""
        tokenizer = self.recognizer.tokenizer
        return "" if tokenizer is None else str(tokenizer.tokens2text(self.tokens()))
