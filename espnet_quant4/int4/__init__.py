"""Deployment: models that compute on codes, and the file that holds them."""

from espnet_quant4.int4.conversion_plan import parts_in_float
from espnet_quant4.int4.convert import convert, convert_structure, describe
from espnet_quant4.int4.runner import use_int4
from espnet_quant4.int4.running_path import describe_path

__all__ = [
    "convert",
    "convert_structure",
    "describe",
    "describe_path",
    "parts_in_float",
    "use_int4",
]
