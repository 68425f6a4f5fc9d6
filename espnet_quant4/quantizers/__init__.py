"""Quantizers: how a float tensor is mapped to b-bit codes, and which gradient goes back.

All share one grid: b bits signed and symmetric, ``2^b - 1`` levels with zero among them,
``scale = clip / (2^(b-1) - 1)``, ``code = round_half_even(clamp(x, -clip, clip) / scale)``. They
differ in where the clip comes from and in the gradients. A family is a file; a quantizer is found
by its name in `registry`.
"""

from espnet_quant4.quantizers import lsq, pact, sawb, statistics  # noqa: F401  (they register)
from espnet_quant4.quantizers.base import Quantizer
from espnet_quant4.quantizers.registry import build, get_class, names, register

__all__ = ["Quantizer", "build", "get_class", "names", "register"]
