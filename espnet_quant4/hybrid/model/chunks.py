"""Sub-sequences for training: utterances cut into chunks of equal length, as hybrid systems train.

Fasoli et al. ("4-bit Quantization of LSTM-based Speech Recognition Models", 2021) train on
non-overlapping sub-sequences of 21 frames. Frames around a chunk can be given to the network without
counting in the loss, so that a bidirectional LSTM enters and leaves a chunk with states that mean
something (Zhang et al., "Highway LSTM RNNs for distant speech recognition", 2016).
"""

from __future__ import annotations

import torch

from espnet_quant4.hybrid.model.frame_targets import IGNORE_ID

MODES = ("none", "sequential", "random")


class ChunkCutter:
    """Cuts a batch of utterances into chunks.

    Args:
        size: frames of a chunk; 0 for none.
        mode: ``none``: utterances stay whole; ``sequential``: chunks from the first frame on;
            ``random``: the cuts of each utterance are moved by a random offset, below ``size``, so
            that they fall elsewhere in every epoch.
        keep: share of the chunks of a batch that is kept, drawn at random; the others are left out.
        left_context: frames before a chunk that the network sees; they do not count in the loss.
        right_context: frames after it.

    Raises:
        ValueError: for an option out of range.
    """

    def __init__(
        self,
        size: int = 0,
        mode: str = "none",
        keep: float = 1.0,
        left_context: int = 0,
        right_context: int = 0,
    ):
        if mode not in MODES:
            raise ValueError(f"chunk_conf: mode: {mode!r}; valid: {', '.join(MODES)}.")
        if size < 0 or (mode != "none" and size == 0):
            raise ValueError(
                f"chunk_conf: size: {size}; valid with mode: {mode} are whole numbers from "
                f"{0 if mode == 'none' else 1}, such as 21."
            )
        if not 0 < keep <= 1:
            raise ValueError(f"chunk_conf: keep: {keep}; valid are numbers above 0, to 1.")
        if left_context < 0 or right_context < 0:
            raise ValueError(
                f"chunk_conf: left_context: {left_context}, right_context: {right_context}; valid "
                "are 0 and above."
            )
        self.size, self.mode, self.keep = size, mode, keep
        self.left_context, self.right_context = left_context, right_context

    @property
    def is_active(self) -> bool:
        """Whether utterances are cut at all."""
        return self.mode != "none"

    def cut(
        self, feats: torch.Tensor, lengths: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Cut a padded batch.

        Args:
            feats: ``(B, T, F)``.
            lengths: ``(B,)`` int64.
            targets: ``(B, T)`` int64.

        Returns:
            ``(chunks, T', F)``, lengths ``(chunks,)``, longest first, and targets ``(chunks, T')``
            with ``IGNORE_ID`` past the lengths and in context.
        """
        if not self.is_active:
            return feats, lengths, targets
        utterances, starts, ends = self._spans(lengths.tolist())
        lengths = lengths.cpu()[utterances]
        first = (starts - self.left_context).clamp_min(0)
        last = torch.minimum(ends + self.right_context, lengths)
        # ESPnet's own RNN encoders want the longest first.
        order = torch.argsort(last - first, descending=True, stable=True)
        device = feats.device
        utterances, starts, ends, first, last = (
            tensor[order].to(device) for tensor in (utterances, starts, ends, first, last)
        )
        time = torch.arange(int((last - first).max()), device=device)
        frames = first.unsqueeze(1) + time
        index = (utterances.unsqueeze(1), torch.minimum(frames, last.unsqueeze(1) - 1))
        outside = (frames >= last.unsqueeze(1)).unsqueeze(2)
        scored = (frames >= starts.unsqueeze(1)) & (frames < ends.unsqueeze(1))
        return (
            feats[index].masked_fill(outside, 0.0),
            last - first,
            targets[index].masked_fill(~scored, IGNORE_ID),
        )

    def _spans(self, lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the utterance, first frame and end of each chunk that is kept."""
        spans = []
        for utterance, length in enumerate(lengths):
            offset = 0
            if self.mode == "random":
                offset = int(torch.randint(self.size, ()))
            # A chunk that would start before the utterance is the shorter first one.
            for start in range(offset - self.size if offset else 0, length, self.size):
                spans.append((utterance, max(start, 0), min(start + self.size, length)))
        if self.keep < 1:
            kept = torch.randperm(len(spans))[: max(1, round(self.keep * len(spans)))]
            spans = [spans[i] for i in sorted(kept.tolist())]
        utterances, starts, ends = torch.tensor(spans).unbind(1)
        return utterances, starts, ends
