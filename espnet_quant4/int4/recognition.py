"""Recognition of a whole recording, with the times of its tokens where the search tells them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from espnet_quant4.int4.features import FrameWindows, check_length
from espnet_quant4.int4.greedy_search import GreedySearch, best_ctc_path, searches_greedily
from espnet_quant4.int4.transcript import TokenText, Transcript


def recognize(recognizer: Any, samples: np.ndarray, sampling_rate: int) -> Transcript:
    """Recognize one recording.

    Args:
        recognizer: ESPnet's ``Speech2Text``, such as `espnet_quant4.int4.model_file.load` returns.
        samples: ``(n,)`` float32, full scale 1.
        sampling_rate: of the samples, which is the model's, in Hz.

    Returns:
        The transcript. Greedy search (``beam_size=1``) of a transducer, or of a model that has CTC
        alone, gives times; ESPnet's beam searches do not tell which frame a token came from.

    Raises:
        ValueError: for a recording that is too short or holds NaN, and for a model without frontend.
    """
    model = recognizer.asr_model
    check_frontend(model)
    windows = FrameWindows.of(model.frontend)
    if windows is not None:
        check_length(len(samples), windows)
        check_frames(model.encoder, windows.of_whole(len(samples)))
    text = TokenText(recognizer)
    if is_ctc_alone(model) and recognizer.beam_search.weights.get("ctc", 0.0) <= 0:
        raise ValueError(
            "ctc_weight: 0; this model has no decoder, and CTC is all there is to search with. Load it "
            "with ctc_weight=1.0."
        )
    greedy_ctc = is_ctc_alone(model) and recognizer.beam_search.beam_size == 1
    if not greedy_ctc and not searches_greedily(recognizer):
        _, tokens, _, hypothesis = recognizer(samples)[0]
        return text.transcript(tokens, None, None, float(hypothesis.score))
    speech = torch.as_tensor(samples).unsqueeze(0)
    speech = speech.to(recognizer.device, getattr(torch, recognizer.dtype))
    with torch.no_grad():
        encoded, _ = model.encode(speech, torch.tensor([speech.size(1)], device=speech.device))
        if greedy_ctc:
            ids, frames, score = best_ctc_path(model, encoded)
        else:
            search = GreedySearch(model)
            search.accept(encoded[0])
            ids, frames, score = search.token_ids, search.token_frames, search.score
    tokens = recognizer.converter.ids2tokens(ids)
    return text.transcript(tokens, frames, frame_seconds(model, sampling_rate), score)


def is_ctc_alone(model: Any) -> bool:
    """Whether a model has neither a transducer nor another decoder."""
    return model.decoder is None and not model.use_transducer_decoder


def check_frames(encoder: Any, frames: int) -> None:
    """Raise ValueError for a recording of which an encoder makes nothing."""
    if hasattr(encoder, "output_frames") and encoder.output_frames(frames) == 0:
        raise ValueError(
            f"{frames} frames are too short to recognize: the encoder puts out one for "
            f"{encoder.frames_per_output}. Leave the recording out, or join it to its neighbour."
        )


def check_frontend(model: Any) -> None:
    """Raise ValueError for a model that takes features."""
    if model.frontend is None:
        raise ValueError(
            "frontend: none; this model takes features, and recordings are waveforms. Train with "
            "frontend: default, or call ESPnet's Speech2Text with features."
        )


def frame_seconds(model: Any, sampling_rate: int) -> float | None:
    """Return the time from one encoder frame to the next; None where the encoder does not tell."""
    hop = getattr(model.frontend, "hop_length", None)
    frames = getattr(model.encoder, "frames_per_output", None)
    return None if hop is None or frames is None else hop * frames / sampling_rate
