"""One target a frame: pdf ids of an alignment laid against the frames of the network."""

from __future__ import annotations

from collections.abc import Sequence

import torch

#: In targets: a frame without one, such as padding.
IGNORE_ID = -1
#: The alignment has round(samples / hop) frames, ESPnet's frontend samples // hop + 1.
LARGEST_DIFFERENCE = 2


def frame_targets(
    pdf_ids: torch.Tensor,
    pdf_ids_lengths: torch.Tensor,
    frame_lengths: torch.Tensor,
    num_pdfs: int,
    utterances: Sequence[str] | None = None,
) -> torch.Tensor:
    """Return the target of each frame; the last id is repeated, or ids are cut, to fit.

    Args:
        pdf_ids: ``(B, L)`` int64, padded with anything.
        pdf_ids_lengths: ``(B,)`` int64.
        frame_lengths: ``(B,)`` int64, frames of the network's input.
        num_pdfs: number of the network's outputs.
        utterances: names of the batch, for messages.

    Returns:
        ``(B, T)`` int64, ``IGNORE_ID`` past each length; ``T`` is the largest length.

    Raises:
        ValueError: where ids and frames differ by more than ``LARGEST_DIFFERENCE``, and for an id
            that is no output of the network.
    """
    if utterances is not None and len(utterances) != len(pdf_ids):
        # Under DataParallel each part of a batch gets the names of all.
        utterances = None
    frame_lengths = frame_lengths.to(pdf_ids.device)
    pdf_ids_lengths = pdf_ids_lengths.to(pdf_ids.device)
    difference = (pdf_ids_lengths - frame_lengths).abs()
    wrong = (difference > LARGEST_DIFFERENCE) | (pdf_ids_lengths < 1)
    if bool(wrong.any()):
        listed = ", ".join(
            f"{_name(i, utterances)} has {int(pdf_ids_lengths[i])} ids for "
            f"{int(frame_lengths[i])} frames"
            for i in wrong.nonzero().flatten().tolist()
        )
        raise ValueError(
            f"pdf_ids: {listed}; they may differ by {LARGEST_DIFFERENCE}. Align the same recordings "
            "at the frame shift of the frontend (hop_length), or leave these utterances out."
        )
    time = torch.arange(int(frame_lengths.max()), device=pdf_ids.device)
    index = torch.minimum(time.unsqueeze(0), pdf_ids_lengths.unsqueeze(1) - 1)
    targets = pdf_ids.gather(1, index)
    padding = time.unsqueeze(0) >= frame_lengths.unsqueeze(1)
    _check_range(targets, padding, num_pdfs, utterances)
    return targets.masked_fill(padding, IGNORE_ID)


def _check_range(
    targets: torch.Tensor, padding: torch.Tensor, num_pdfs: int, utterances: Sequence[str] | None
) -> None:
    wrong = ((targets < 0) | (targets >= num_pdfs)) & ~padding
    if bool(wrong.any()):
        utterance, frame = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"pdf_ids: {_name(utterance, utterances)} has id {int(targets[utterance, frame])} at "
            f"frame {frame}; valid are 0 to {num_pdfs - 1}. The alignment was made with another "
            "tree: give the num_pdfs that lies beside it (--num_pdfs), or align again."
        )


def _name(position: int, utterances: Sequence[str] | None) -> str:
    return f"batch position {position}" if utterances is None else str(utterances[position])
