"""The corpus as ESPnet3 asks for it: who prepares it, and one part of it."""

from .builder import AN4Builder as DatasetBuilder
from .dataset import AN4Dataset as Dataset

__all__ = ["Dataset", "DatasetBuilder"]
