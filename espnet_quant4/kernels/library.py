"""Loads ``libquant4``, the C++ library of the INT4 kernels (``csrc/quant4.h``).

Environment: ``ESPNET_QUANT4_INSTRUCTION_SET`` names one of `instruction_sets` to be used instead
of the best; ``ESPNET_QUANT4_LIBRARY`` is the path of another build.
"""

from __future__ import annotations

import ctypes
import functools
import os
import warnings
from ctypes import c_char_p, c_double, c_float, c_int, c_int64, c_void_p
from pathlib import Path

from espnet_quant4.kernels import build

INTERFACE_VERSION = 3
SWITCH = "ESPNET_QUANT4_INSTRUCTION_SET"
# What functions of the library return, besides 0.
INVALID, NO_MEMORY, NOT_A_NUMBER = 1, 2, 3


class NativeError(RuntimeError):
    """The C++ library is not there, or refused a call."""


class LSTMCall(ctypes.Structure):
    """``quant4_lstm_call``."""

    _fields_ = (
        ("x", c_void_p),
        ("frames", c_int64),
        ("batch", c_int64),
        ("x_frame_stride", c_int64),
        ("x_batch_stride", c_int64),
        ("input_clip", c_float),
        ("input_max", c_int64),
        ("lengths", c_void_p),
        ("initial_hidden", c_void_p),
        ("initial_cell", c_void_p),
        ("hidden", c_void_p),
        ("cell", c_void_p),
        ("out", c_void_p),
        ("out_frame_stride", c_int64),
        ("out_batch_stride", c_int64),
        ("codes", c_void_p),
        ("threads", c_int64),
    )


_FUNCTIONS: dict[str, tuple[object, tuple[object, ...]]] = {
    "quant4_interface_version": (c_int64, ()),
    "quant4_instruction_set_count": (c_int64, ()),
    "quant4_instruction_set_name": (c_char_p, (c_int64,)),
    "quant4_instruction_set_works": (c_int, (c_int64,)),
    "quant4_linear_create": (
        c_void_p,
        (c_int64, c_void_p, c_int64, c_int64, c_int64, c_void_p, c_void_p),
    ),
    "quant4_linear_destroy": (None, (c_void_p,)),
    "quant4_linear_run": (
        c_int,
        (c_void_p, c_void_p, c_int64, c_float, c_int64, c_void_p, c_int64),
    ),
    "quant4_linear_once": (
        c_int,
        (
            c_int64,
            c_void_p,
            c_int64,
            c_int64,
            c_int64,
            c_void_p,
            c_void_p,
            c_void_p,
            c_int64,
            c_float,
            c_int64,
            c_void_p,
            c_int64,
        ),
    ),
    "quant4_linear_sums": (c_int, (c_void_p, c_void_p, c_int64, c_int64, c_void_p, c_int64)),
    "quant4_lstm_create": (c_void_p, (c_int64, c_int64, c_int64, c_int64, c_int64)),
    "quant4_lstm_destroy": (None, (c_void_p,)),
    "quant4_lstm_set": (
        c_int,
        (
            c_void_p,
            c_int64,
            c_int64,
            c_void_p,
            c_int64,
            c_void_p,
            c_int64,
            c_void_p,
            c_int64,
            c_void_p,
            c_void_p,
            c_float,
            c_int64,
        ),
    ),
    "quant4_lstm_run": (c_int, (c_void_p, ctypes.POINTER(LSTMCall))),
    "quant4_lstm_training_forward": (c_int, (c_int64, c_void_p, c_void_p)),
    "quant4_lstm_training_backward": (c_int, (c_int64, c_void_p, c_void_p)),
    "quant4_fake_quantize": (c_int, (c_int64, c_void_p, c_void_p, c_void_p, c_void_p)),
    "quant4_straight_through": (
        c_int,
        (c_int64, c_void_p, c_int64, c_void_p, c_void_p, c_void_p),
    ),
    "quant4_moments": (c_int, (c_int64, c_void_p, c_int64, c_int64, c_void_p, c_int64)),
    "quant4_quantize": (c_int, (c_int64, c_void_p, c_int64, c_float, c_int64, c_void_p)),
    "quant4_embedding_run": (
        c_int,
        (c_void_p, c_int64, c_int64, c_int64, c_void_p, c_int64, c_void_p, c_int64, c_void_p),
    ),
    "quant4_peak_macs": (c_double, (c_int64, c_double)),
    "quant4_read_bandwidth": (c_double, (c_int64, c_double)),
}


def library_path() -> Path:
    """Return where the library is, or would be: ``$ESPNET_QUANT4_LIBRARY``, or beside this file."""
    return Path(os.environ.get("ESPNET_QUANT4_LIBRARY") or build.HERE / build.LIBRARY)


@functools.lru_cache(maxsize=1)
def load() -> ctypes.CDLL:
    """Load the library.

    Raises:
        NativeError: where it is not built, does not load, or is of another version.
    """
    path = library_path()
    how = "Build it: python -m espnet_quant4.kernels.build (needs a C++ compiler)."
    if not path.is_file():
        raise NativeError(f"the INT4 kernels are not built: no {path}. {how}")
    try:
        library = ctypes.CDLL(str(path))
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise NativeError(f"the INT4 kernels do not load: {path}: {error}. {how}") from error
    version = library.quant4_interface_version()
    if version != INTERFACE_VERSION:
        raise NativeError(
            f"the INT4 kernels in {path} have interface {version}; this package needs "
            f"{INTERFACE_VERSION}. {how}"
        )
    return library


@functools.lru_cache(maxsize=1)
def is_available() -> bool:
    """Whether the library can be used; warns once where it cannot."""
    try:
        load()
        selected_instruction_set()
    except NativeError as error:
        warnings.warn(
            f"{error} Until then 4-bit models are emulated in float, with the same results and "
            "slower.",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


def instruction_sets() -> dict[str, bool]:
    """Return the instruction sets that are compiled in, best first, and whether each works here."""
    return dict(_instruction_sets())


@functools.lru_cache(maxsize=1)
def _instruction_sets() -> dict[str, bool]:
    # Training asks several times a layer.
    library = load()
    return {
        library.quant4_instruction_set_name(i).decode(): bool(
            library.quant4_instruction_set_works(i)
        )
        for i in range(library.quant4_instruction_set_count())
    }


def selected_instruction_set() -> int:
    """Return the number of the instruction set in use.

    Raises:
        NativeError: where ``$ESPNET_QUANT4_INSTRUCTION_SET`` names one that does not work here.
    """
    known = _instruction_sets()
    wanted = os.environ.get(SWITCH)
    working = [name for name, works in known.items() if works]
    if wanted and wanted not in working:
        raise NativeError(
            f"{SWITCH}={wanted}: valid on this processor: {', '.join(working)}. Unset it to use "
            f"{working[0]}."
        )
    return list(known).index(wanted or working[0])


def check_status(status: int, where: str, range_of: str = "an argument") -> None:
    """Raise for what a function of the library returned, unless it is 0.

    Args:
        status: what it returned.
        where: what was being done.
        range_of: what may have been out of range.

    Raises:
        ValueError: for NaN in the input, or something out of range.
        NativeError: where memory ran out.
    """
    if status == NOT_A_NUMBER:
        raise ValueError(
            f"{where}: the input holds NaN, which has no code; check where it comes from."
        )
    if status == INVALID:
        raise ValueError(f"{where}: {range_of} is out of range.")
    if status:
        raise NativeError(f"{where}: out of memory.")
