"""Greedy searches of transducers and of CTC, which also note the frame of each token."""

from __future__ import annotations

from typing import Any

import torch


class GreedySearch:
    """Of a transducer: at most one token a frame, as ``BeamSearchTransducer.greedy_search``.

    It goes on from call to call.

    Args:
        model: ESPnet's ASR model with a recurrent transducer decoder.

    Attributes:
        token_ids: what was found so far.
        token_frames: the encoder frame that each token came from.
        score: sum of the tokens' log probabilities.
        frames: encoder frames so far.
    """

    def __init__(self, model: Any):
        self.model = model
        self.token_ids: list[int] = []
        self.token_frames: list[int] = []
        self.score = 0.0
        self.frames = 0
        self._decoder_state: Any = None
        self._decoder_out: torch.Tensor | None = None

    def accept(self, encoded: torch.Tensor) -> None:
        """Search the next encoder frames ``(T, D)``."""
        with torch.no_grad():
            self._accept(encoded)

    def _accept(self, encoded: torch.Tensor) -> None:
        decoder, joint_network, blank = (
            self.model.decoder,
            self.model.joint_network,
            self.model.blank_id,
        )
        if self._decoder_out is None:
            decoder.set_device(encoded.device)
            self._decoder_state = decoder.init_state(1)
            self._step(blank)
        for frame in encoded:
            log_probabilities = joint_network(frame, self._decoder_out).log_softmax(dim=-1)
            best, token = log_probabilities.max(dim=-1)
            if int(token) != blank:
                self.token_ids.append(int(token))
                self.token_frames.append(self.frames)
                self.score += float(best)
                self._step(int(token))
            self.frames += 1

    def _step(self, token: int) -> None:
        decoder = self.model.decoder
        # ESPnet's own step keeps every earlier output in a cache, by the text of all tokens.
        embedded = decoder.embed(torch.tensor([[token]], device=decoder.device))
        out, self._decoder_state = decoder.rnn_forward(embedded, self._decoder_state)
        self._decoder_out = out[0, 0]


def best_ctc_path(model: Any, encoded: torch.Tensor) -> tuple[list[int], list[int], float]:
    """Follow the likeliest symbol of each frame; repeated symbols are one token, blanks none.

    Args:
        model: ESPnet's ASR model with a CTC layer.
        encoded: ``(1, T, D)``.

    Returns:
        The tokens, the first frame of each, and the path's log probability.
    """
    best, symbols = model.ctc.log_softmax(encoded)[0].max(dim=-1)
    path = symbols.tolist()
    starts = [
        frame
        for frame, symbol in enumerate(path)
        if symbol != model.blank_id and (frame == 0 or symbol != path[frame - 1])
    ]
    return [path[frame] for frame in starts], starts, float(best.sum())


def searches_greedily(recognizer: Any) -> bool:
    """Whether an ESPnet ``Speech2Text`` runs the search of `GreedySearch`."""
    search = recognizer.beam_search_transducer
    return (
        search is not None
        and search.search_algorithm.__name__ == "greedy_search"
        and hasattr(recognizer.asr_model.decoder, "rnn_forward")
    )
