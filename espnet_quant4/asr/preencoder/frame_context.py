"""``preencoder: frame_context``: what a frame is told of its neighbours before the network sees it.

Time derivatives and stacked neighbours, as Kaldi's ``add-deltas`` and ``splice-feats`` make them: past
the ends of an utterance its first and last frames repeat. In the ASR task ``preencoder_conf`` has to
name ``input_size``, the features a frame, as with ESPnet's own; the hybrid task knows it.
"""

import torch
from espnet2.asr.preencoder.abs_preencoder import AbsPreEncoder
from typeguard import typechecked

LARGEST_DELTA_ORDER = 2


class FrameContext(AbsPreEncoder):
    """Deltas, then neighbouring frames beside each frame. Without options it changes nothing.

    Args:
        input_size: features a frame.
        deltas: 0, 1 or 2: highest order of time derivatives that follow the features in a frame.
        delta_window: frames on each side that a derivative is computed from.
        left_context: frames before each frame that are stacked beside it.
        right_context: frames after it.

    Raises:
        ValueError: for an option out of range.
    """

    @typechecked
    def __init__(
        self,
        input_size: int,
        deltas: int = 0,
        delta_window: int = 2,
        left_context: int = 0,
        right_context: int = 0,
    ):
        super().__init__()
        if not 0 <= deltas <= LARGEST_DELTA_ORDER:
            raise ValueError(
                f"preencoder_conf: deltas: {deltas}; valid are 0 to {LARGEST_DELTA_ORDER}."
            )
        options = {
            "delta_window": (delta_window, 1),
            "left_context": (left_context, 0),
            "right_context": (right_context, 0),
        }
        for name, (value, least) in options.items():
            if value < least:
                raise ValueError(f"preencoder_conf: {name}: {value}; valid are {least} and above.")
        self.deltas = deltas
        self.delta_window = delta_window
        self.left_context = left_context
        self.right_context = right_context
        self._output_size = input_size * (1 + deltas) * (left_context + 1 + right_context)

    def output_size(self) -> int:
        return self._output_size

    @property
    def reach(self) -> tuple[int, int]:
        """How many frames before and after a frame its result depends on."""
        derived = self.deltas * self.delta_window
        return derived + self.left_context, derived + self.right_context

    def forward(
        self, input: torch.Tensor, input_lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add context to a padded batch.

        Args:
            input: ``(B, T, input_size)`` float32.
            input_lengths: ``(B,)`` int64, each in ``1..T``.

        Returns:
            ``(B, T, output_size)``, zero past each length, and the lengths as they came.
        """
        if self.deltas == self.left_context == self.right_context == 0:
            return input, input_lengths
        feats = add_deltas(input, input_lengths, self.deltas, self.delta_window)
        feats = stack_neighbours(feats, input_lengths, self.left_context, self.right_context)
        time = torch.arange(feats.size(1), device=feats.device)
        padding = time >= input_lengths.to(feats.device).unsqueeze(1)
        return feats.masked_fill(padding.unsqueeze(2), 0.0), input_lengths


def add_deltas(
    feats: torch.Tensor, lengths: torch.Tensor, order: int, window: int = 2
) -> torch.Tensor:
    """Append time derivatives up to an order to the features of each frame.

    Args:
        feats: ``(B, T, F)`` float32.
        lengths: ``(B,)`` int64.
        order: of the highest derivative; 0 returns ``feats``.
        window: frames on each side.

    Returns:
        ``(B, T, (order + 1) * F)``; what is past the lengths means nothing.
    """
    from torchaudio.functional import compute_deltas

    orders = [feats]
    for _ in range(order):
        # The padding of a batch must look to a derivative as the end of the recording does.
        repeated = _neighbour(orders[-1], lengths, 0).transpose(1, 2)
        orders.append(compute_deltas(repeated, 2 * window + 1).transpose(1, 2))
    return torch.cat(orders, dim=2)


def stack_neighbours(
    feats: torch.Tensor, lengths: torch.Tensor, left: int, right: int
) -> torch.Tensor:
    """Put frames ``t - left .. t + right`` beside each other in frame ``t``.

    Args:
        feats: ``(B, T, F)``.
        lengths: ``(B,)`` int64.
        left: frames before.
        right: frames after.

    Returns:
        ``(B, T, (left + 1 + right) * F)``; what is past the lengths means nothing.
    """
    if left == right == 0:
        return feats
    return torch.cat(
        [_neighbour(feats, lengths, shift) for shift in range(-left, right + 1)], dim=2
    )


def _neighbour(feats: torch.Tensor, lengths: torch.Tensor, shift: int) -> torch.Tensor:
    """Return frame ``t + shift`` at each ``t``, the nearest frame where there is none."""
    time = torch.arange(feats.size(1), device=feats.device) + shift
    last = lengths.to(feats.device).unsqueeze(1) - 1
    index = torch.minimum(time.clamp_min(0).unsqueeze(0), last)
    return feats.gather(1, index.unsqueeze(2).expand(-1, -1, feats.size(2)))
