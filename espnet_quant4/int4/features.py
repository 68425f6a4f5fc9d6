"""Log-mel features of a recording by pieces: the frames of the whole, in a piece's memory.

ESPnet masks padding with a square of booleans as wide as the recording has frames (``make_pad_mask``),
three of them at once: 6 minutes at 8 ms a frame take 6 GB, an hour 600. A frame depends on the samples
of its window alone, and global normalization on the frame alone, so pieces with overlapping ends give
the same frames but for the last bit of float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

#: Frames in a piece; recordings up to this length take ESPnet's own way.
PIECE_FRAMES = 2048


@dataclass(frozen=True)
class FrameWindows:
    """Where the windows of a short-time Fourier transform lie, as ``torch.stft`` places them.

    Attributes:
        n_fft: samples in a window.
        hop: samples from one window to the next.
        center: whether frame ``t`` is centred at sample ``t * hop``, with both ends of the recording
            mirrored; else it begins there.
    """

    n_fft: int
    hop: int
    center: bool

    @classmethod
    def of(cls, frontend: Any) -> FrameWindows | None:
        """Return the windows of a frontend; None for all but ESPnet's ``frontend: default``."""
        from espnet2.asr.frontend.default import DefaultFrontend

        # A subclass may compute frames from more than their windows.
        if type(frontend) is not DefaultFrontend or frontend.stft is None:
            return None
        stft = frontend.stft
        return cls(int(stft.n_fft), int(stft.hop_length), bool(stft.center))

    @property
    def reach_back(self) -> int:
        """Samples of a window before the frame's place."""
        return self.n_fft // 2 if self.center else 0

    @property
    def shortest(self) -> int:
        """Samples in the shortest recording that has a frame; mirroring needs more than it mirrors."""
        return self.n_fft // 2 + 1 if self.center else self.n_fft

    def of_whole(self, samples: int) -> int:
        """Return the number of frames of a whole recording of so many samples."""
        if samples < self.shortest:
            return 0
        return 1 + (samples + 2 * self.reach_back - self.n_fft) // self.hop

    def of_beginning(self, samples: int) -> int:
        """Return the number of frames that so many samples settle, whatever follows them."""
        if samples < self.shortest:
            return 0
        return max(0, 1 + (samples + self.reach_back - self.n_fft) // self.hop)

    def piece_start(self, frame: int) -> int:
        """Return the sample from which a frame and those after it can be computed.

        It is a multiple of the hop, so that the frames of the piece are the recording's, and one
        sample more than the window holds: the mirrored end of a recording may reach back that far.
        """
        return max(0, (frame * self.hop - self.reach_back - 1) // self.hop * self.hop)

    def piece_end(self, frame: int) -> int:
        """Return the sample behind the window of the frame before ``frame``."""
        return (frame - 1) * self.hop - self.reach_back + self.n_fft


def features_in_pieces(
    frontend: Any, normalize: Any, speech: torch.Tensor, piece_frames: int | None = None
) -> torch.Tensor:
    """Compute the normalized features of one recording.

    Args:
        frontend: ESPnet's ``default``.
        normalize: ESPnet's ``global_mvn`` or ``utterance_mvn``, or None.
        speech: ``(1, samples)`` float32, at least `FrameWindows.shortest` samples.
        piece_frames: frames in a piece; None: `PIECE_FRAMES`.

    Returns:
        ``(1, T, F)``, equal to what the modules return for the whole recording but for float32
        rounding.

    Raises:
        ValueError: for another frontend or normalization; `can_be_in_pieces` asks first.
    """
    windows = FrameWindows.of(frontend)
    if windows is None or not can_be_in_pieces(frontend, normalize):
        raise ValueError(
            f"features of frontend {type(frontend).__name__} and normalization "
            f"{type(normalize).__name__} cannot be made in pieces; valid are frontend: default with "
            "normalize: global_mvn, utterance_mvn or none."
        )
    by_frame = normalize if _is_global_mvn(normalize) else None
    piece_frames = piece_frames or PIECE_FRAMES
    total = speech.size(1)
    count = windows.of_whole(total)
    pieces = []
    for first in range(0, count, piece_frames):
        after = min(first + piece_frames, count)
        start = windows.piece_start(first)
        end = total if after == count else max(windows.piece_end(after), start + windows.shortest)
        found = frames_of_piece(frontend, by_frame, speech[:, start : min(end, total)])
        offset = first - start // windows.hop
        # A copy: a view would keep the whole piece.
        pieces.append(found[:, offset : offset + after - first].clone())
    feats = torch.cat(pieces, dim=1)
    return feats if normalize is by_frame else _utterance_mvn(normalize, feats)


def can_be_in_pieces(frontend: Any, normalize: Any) -> bool:
    """Whether `features_in_pieces` knows the frontend and the normalization."""
    from espnet2.layers.utterance_mvn import UtteranceMVN

    known = normalize is None or _is_global_mvn(normalize) or type(normalize) is UtteranceMVN
    return FrameWindows.of(frontend) is not None and known


def is_long_recording(model: Any, speech: torch.Tensor, speech_lengths: torch.Tensor) -> bool:
    """Whether a model should compute its features in pieces: one recording, without gradients.

    Args:
        model: one with ``frontend`` and ``normalize``.
        speech: ``(B, samples)``.
        speech_lengths: ``(B,)``.
    """
    return (
        len(speech) == 1
        and int(speech_lengths[0]) == speech.size(1)
        and not model.training
        and not torch.is_grad_enabled()
        and can_be_in_pieces(model.frontend, model.normalize)
        and _windows_of(model.frontend).of_whole(speech.size(1)) > PIECE_FRAMES
    )


def _windows_of(frontend: Any) -> FrameWindows:
    windows = FrameWindows.of(frontend)
    assert windows is not None
    return windows


def frames_of_piece(frontend: Any, normalize: Any, speech: torch.Tensor) -> torch.Tensor:
    """Return the features ``(1, T, F)`` of samples ``(1, n)``, normalized frame by frame or not."""
    feats, lengths = frontend(speech, torch.tensor([speech.size(1)], device=speech.device))
    if normalize is not None:
        feats, lengths = normalize(feats, lengths)
    found: torch.Tensor = feats
    return found


def _is_global_mvn(normalize: Any) -> bool:
    from espnet2.layers.global_mvn import GlobalMVN

    return type(normalize) is GlobalMVN


def _utterance_mvn(normalize: Any, feats: torch.Tensor) -> torch.Tensor:
    """Normalize one whole recording ``(1, T, F)`` as ESPnet does, without its mask of padding."""
    centred = feats - feats.mean(dim=1, keepdim=True)
    if normalize.norm_vars:
        std = centred.square().mean(dim=1, keepdim=True).sqrt().clamp_min(normalize.eps)
        feats, centred = feats / std, centred / std
    return centred if normalize.norm_means else feats


class FeatureStream:
    """The normalized features of a recording that comes in chunk by chunk.

    Args:
        frontend: ESPnet's ``default``.
        normalize: what maps frames one by one, or None.
    """

    def __init__(self, frontend: Any, normalize: Any):
        windows = FrameWindows.of(frontend)
        if windows is None:
            raise ValueError(f"frontend {type(frontend).__name__}; valid: frontend: default")
        self.windows = windows
        self.frontend, self.normalize = frontend, normalize
        self._samples: torch.Tensor | None = None
        self._first_sample = 0  # of the recording, at the start of the buffer
        self._frames = 0  # that were given out

    @property
    def buffered(self) -> int:
        """Number of samples that wait for those to come; less than a window, a hop and a chunk."""
        return 0 if self._samples is None else len(self._samples)

    def accept(self, samples: torch.Tensor, is_last: bool) -> torch.Tensor | None:
        """Take the next samples ``(n,)``; return the frames ``(T, F)`` that they settle, None for none.

        Raises:
            ValueError: where ``is_last`` leaves a recording that is shorter than its first window.
        """
        self._samples = samples if self._samples is None else torch.cat([self._samples, samples])
        total = self._first_sample + len(self._samples)
        if is_last:
            check_length(total, self.windows)
        settled = self.windows.of_whole(total) if is_last else self.windows.of_beginning(total)
        if settled <= self._frames:
            return None
        feats = frames_of_piece(self.frontend, self.normalize, self._samples.unsqueeze(0))
        offset = self._first_sample // self.windows.hop
        found = feats[0, self._frames - offset : settled - offset].clone()
        self._frames = settled
        self._forget(total)
        return found

    def _forget(self, total: int) -> None:
        """Drop the samples that no frame to come needs."""
        assert self._samples is not None
        hop = self.windows.hop
        # Where windows are shorter than the hop, the next one may lie past what has come.
        keep_from = min(self.windows.piece_start(self._frames), total // hop * hop)
        if keep_from > self._first_sample:
            self._samples = self._samples[keep_from - self._first_sample :].clone()
            self._first_sample = keep_from


def check_length(samples: int, windows: FrameWindows) -> None:
    """Raise ValueError for a recording that is shorter than its first window."""
    if samples < windows.shortest:
        raise ValueError(
            f"{samples} samples at the model's sampling rate are too short to recognize: its first "
            f"window needs {windows.shortest} (frontend_conf: n_fft: {windows.n_fft}). Leave the "
            "recording out, or join it to its neighbour."
        )
