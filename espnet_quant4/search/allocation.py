"""Choice of widths under a size budget: the multiple-choice knapsack problem."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

import numpy as np

Key = TypeVar("Key", bound=Hashable)

#: Into how many steps the budget is cut; sizes are rounded up to whole steps, so that none is exceeded.
STEPS = 20000


class BudgetError(ValueError):
    """No choice of widths fits."""


def allocate(
    losses: Mapping[Key, Mapping[int, float]],
    parameters: Mapping[Key, int],
    budget_bits: float,
    steps: int = STEPS,
) -> dict[Key, int]:
    """Choose a width for each tensor, so that the sum of their losses is least.

    By dynamic programming over the size in steps of ``budget_bits / steps`` bits. Rounding sizes up may
    pass over a choice that fits by less than a step a tensor.

    Args:
        losses: for each tensor what each of its widths costs, in any unit that adds up.
        parameters: number of weights of each.
        budget_bits: for all of them.
        steps: of the budget.

    Returns:
        ``{tensor: bits}``.

    Raises:
        BudgetError: where the smallest widths are too many bits already.
    """
    keys = list(losses)
    unit = budget_bits / steps
    best = np.zeros(steps + 1)  # least loss of the tensors so far within so many steps
    chosen = []
    for key in keys:
        widths = sorted(losses[key])
        candidates = np.full((len(widths), steps + 1), np.inf)
        for row, bits in enumerate(widths):
            size = int(np.ceil(parameters[key] * bits / unit)) if unit > 0 else steps + 1
            if size <= steps:
                candidates[row, size:] = best[: steps + 1 - size] + losses[key][bits]
        choice = candidates.argmin(axis=0)
        best = candidates.min(axis=0)
        chosen.append((widths, choice))
    if not np.isfinite(best[steps]):
        least = sum(parameters[key] * min(losses[key]) for key in keys)
        raise BudgetError(
            f"the budget leaves {budget_bits / 8e6:.3f} MB for quantized weights, and the fewest bits "
            f"are {least / 8e6:.3f} MB; allow more (--budget) or fewer bits (--widths)."
        )
    allocation: dict[Key, int] = {}
    left = steps
    for key, (widths, choice) in zip(reversed(keys), reversed(chosen), strict=True):
        bits = widths[choice[left]]
        allocation[key] = bits
        left -= int(np.ceil(parameters[key] * bits / unit))
    return {key: allocation[key] for key in keys}


def total_bits(allocation: Mapping[Key, int], parameters: Mapping[Key, int]) -> int:
    """Return how many bits a choice takes."""
    return sum(parameters[key] * bits for key, bits in allocation.items())
