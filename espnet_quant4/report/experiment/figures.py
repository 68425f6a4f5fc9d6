"""The page's pictures, as PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from espnet_quant4.report.drawing import BLUE, GREY, RED, new_figure, plain_style
from espnet_quant4.report.espnet_log import EpochResults
from espnet_quant4.report.experiment.measures import TensorMeasures

# epoch: smallest and largest clip over the groups
ClipsByEpoch = Mapping[int, tuple[float, float]]

# More lines than this would only paint the picture grey.
MOST_LEVELS = 31


def _png(figure: Any) -> bytes:
    """Return the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


@plain_style()
def training_curve(epochs: Sequence[EpochResults]) -> bytes:
    """Draw the losses and the learning rate over the epochs; returns a PNG."""
    figure, (losses, rates) = new_figure(2, 9, 2.8)
    x = [epoch.epoch for epoch in epochs]
    losses.plot(x, [e.train_loss for e in epochs], ".-", color=BLUE, label="train")
    losses.plot(x, [e.valid_loss for e in epochs], ".-", color=RED, label="valid")
    losses.set(xlabel="epoch", ylabel="loss")
    losses.legend()
    rates.plot(x, [e.learning_rate for e in epochs], ".-", color=BLUE)
    rates.set(xlabel="epoch", ylabel="learning rate")
    for axes in (losses, rates):
        _whole_epochs(axes)
    return _png(figure)


@plain_style()
def tensor(measures: TensorMeasures, clips: ClipsByEpoch) -> bytes:
    """Draw a tensor's histogram with grid and clip, and its clip over the epochs.

    Args:
        measures: of the tensor.
        clips: not drawn where they are the same in all epochs, as constants are.

    Returns:
        A PNG.
    """
    moved = len(set(clips.values())) > 1
    figure, axes = new_figure(2 if moved else 1, 9 if moved else 6, 2.4)
    _histogram(axes[0], measures)
    if moved:
        epochs = sorted(clips)
        low, high = ([clips[epoch][side] for epoch in epochs] for side in (0, 1))
        axes[1].plot(epochs, high, ".-", color=RED)
        if low != high:
            axes[1].plot(epochs, low, ".-", color=RED)
            axes[1].fill_between(epochs, low, high, color=RED, alpha=0.2)
        axes[1].set(xlabel="epoch", ylabel="clip" if low == high else "clips, least to largest")
        _whole_epochs(axes[1])
    return _png(figure)


def _histogram(axes: Any, measures: TensorMeasures) -> None:
    axes.stairs(measures.counts, measures.edges, fill=True, color=BLUE)
    # Values at a clip are rare and matter most.
    axes.set_yscale("symlog", linthresh=1)
    axes.set(ylim=(0, None), ylabel="values", xlabel="value")
    if measures.clips is None:
        return
    clip = 1.0 if measures.in_units_of_clip else measures.clips[1]
    if measures.in_units_of_clip:
        axes.set_xlabel("value / clip of its group")
    if 2 * measures.max_code + 1 <= MOST_LEVELS:
        for code in range(-measures.max_code, measures.max_code + 1):
            axes.axvline(clip * code / measures.max_code, color=GREY, linewidth=0.5)
    for side in (-clip, clip):
        axes.axvline(side, color=RED, linewidth=1.5)


def _whole_epochs(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
