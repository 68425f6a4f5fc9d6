"""What construction says of the magnitude of a tensor."""

from __future__ import annotations

import torch


def bound_of_activation(activation: torch.nn.Module | None) -> float | None:
    """Return the largest magnitude that an activation puts out; None where nothing bounds it."""
    if isinstance(activation, (torch.nn.Tanh, torch.nn.Sigmoid, torch.nn.Softsign)):
        return 1.0
    if isinstance(activation, torch.nn.Hardtanh):  # ReLU6 among them
        return float(max(abs(activation.min_val), abs(activation.max_val)))
    return None
