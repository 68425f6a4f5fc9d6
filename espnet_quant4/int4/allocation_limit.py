"""A bound on what a configuration may allocate while a model is built from it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}


class AllocationLimit(TorchFunctionMode):
    """Lets PyTorch make tensors of this many elements in all, and no more.

    A size that is wrong by a few digits would otherwise fill the memory, and the system end the
    process, before anything could compare it with the weights.

    Args:
        elements: how many may be made.

    Raises:
        ValueError: within the block, where more are asked for.
    """

    def __init__(self, elements: int):
        super().__init__()
        self.elements = elements
        self.left = elements

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in _FACTORIES:
            sizes = args[0] if args and isinstance(args[0], (list, tuple)) else args
            sizes = kwargs.get("size", sizes)
            self.left -= math.prod(s for s in sizes if isinstance(s, int) and s > 0)
            if self.left < 0:
                raise ValueError(
                    f"it asks for a tensor of sizes {tuple(sizes)}, and for more than "
                    f"{self.elements:,} numbers in all"
                )
        return function(*args, **kwargs)
