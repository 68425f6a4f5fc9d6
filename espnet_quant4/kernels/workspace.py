"""Memory that a thread keeps from one call to the next.

A large tensor costs as much time to get from the system, page by page, as to fill; what lives no longer
than a call is therefore put in the same place each time. At most the largest of each name is kept.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import torch

_kept = threading.local()


def workspace(name: str, shape: Sequence[int]) -> torch.Tensor:
    """Return uninitialized float32 memory, valid until this thread asks for ``name`` again."""
    count = math.prod(shape)
    tensors: dict[str, torch.Tensor] = _kept.__dict__
    if name not in tensors or tensors[name].numel() < count:
        tensors.pop(name, None)
        tensors[name] = torch.empty(count, dtype=torch.float32, device="cpu")
    return tensors[name][:count].view(*shape)
