"""What a model refuses in its input before the frontend sees it."""

from __future__ import annotations

import torch

from espnet_quant4.int4.features import FrameWindows


def check_speech(
    speech: torch.Tensor,
    speech_lengths: torch.Tensor,
    frontend: torch.nn.Module | None,
    training: bool,
) -> None:
    """Refuse speech that cannot be recognized.

    Args:
        speech: ``(B, samples)`` float32, or features ``(B, T, F)`` where there is no frontend.
        speech_lengths: ``(B,)`` int64.
        frontend: ESPnet's, or None.
        training: NaN then passes: it reaches the loss, where ESPnet's trainer skips and counts
            the step.

    Raises:
        ValueError: for an empty utterance, and where all are too short for the frontend's first
            window; in evaluation also for NaN or infinite input.
    """
    empty = (speech_lengths < 1).nonzero().flatten().tolist()
    if empty:
        raise ValueError(
            f"speech_lengths is 0 at batch positions {empty}: empty utterances cannot be "
            "recognized. Remove them from the data (recipes do so in stage 4)."
        )
    windows = FrameWindows.of(frontend)
    longest = int(speech_lengths.max())
    if windows is not None and longest < windows.shortest:
        raise ValueError(
            f"the longest utterance of the batch has {longest} samples, and the frontend needs "
            f"more than {windows.shortest - 1} (n_fft: {windows.n_fft}). Remove such utterances from "
            "the data (recipes do so in stage 4)."
        )
    if not training and not bool(torch.isfinite(speech).all()):
        finite = torch.isfinite(speech).flatten(1).all(dim=1)
        raise ValueError(
            f"speech holds NaN or infinite values at batch positions "
            f"{(~finite).nonzero().flatten().tolist()}. Check these recordings or features."
        )
