"""Which gradient passes through fake quantization, and what a learned clip gets.

The numbers are those of ``GradientRule`` in ``csrc/training_kernels.h``; the definitions are the
autograd functions in `espnet_quant4.quantizers.rounding`.
"""

from __future__ import annotations

import enum


class GradientRule(enum.IntEnum):
    """How a quantizer's gradient goes, which is all that its fused form has to know beside its clip."""

    #: Not quantized.
    NONE = 0
    #: Passes inside the clip, is zero outside.
    CLIPPED = 1
    #: Passes everywhere.
    FULL = 2
    #: Passes inside; the clip learns from the values outside.
    LEARNED = 3
    #: Passes inside; the clip learns from the values outside and from the rounding residual inside.
    LEARNED_WITH_RESIDUAL = 4
