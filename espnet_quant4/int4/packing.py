"""Codes as bits: how weights lie in a file."""

from __future__ import annotations

import numpy as np
import torch


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack codes row by row.

    A code is stored as ``code + 2^(bits-1)``, its lowest bit first; the first code of a row is in the
    low bits of the row's first byte, and each row starts on a byte. With 4 bits: two codes a byte.

    Args:
        codes: ``(rows, columns)`` int8, each in ``-2^(bits-1) .. 2^(bits-1) - 1``.
        bits: 2 to 8.

    Returns:
        ``(rows, ceil(columns * bits / 8))`` uint8.

    Raises:
        ValueError: for codes or bits out of range.
    """
    offset = _offset(bits)
    rows, columns = codes.shape
    if codes.numel() and not -offset <= int(codes.min()) <= int(codes.max()) < offset:
        raise ValueError(
            f"codes {int(codes.min())} to {int(codes.max())}; valid at {bits} bits are {-offset} to "
            f"{offset - 1}"
        )
    values = (codes.to(torch.int16) + offset).to(torch.uint8).numpy()
    if bits == 8:
        return torch.from_numpy(values.copy())
    if bits == 4:
        padded = np.zeros((rows, columns + columns % 2), dtype=np.uint8)
        padded[:, :columns] = values
        return torch.from_numpy(padded[:, 0::2] | padded[:, 1::2] << 4)
    single = np.unpackbits(values.reshape(rows, columns, 1), axis=2, count=bits, bitorder="little")
    packed = np.packbits(single.reshape(rows, columns * bits), axis=1, bitorder="little")
    return torch.from_numpy(packed)


def unpack(packed: torch.Tensor, bits: int, columns: int) -> torch.Tensor:
    """Return the codes ``(rows, columns)`` int8 that `pack` packed.

    Raises:
        ValueError: where the width is not that of ``columns`` codes.
    """
    offset = _offset(bits)
    rows, width = packed.shape
    if width != (columns * bits + 7) // 8:
        raise ValueError(
            f"{columns} columns at {bits} bits take {(columns * bits + 7) // 8} bytes a row; the "
            f"packed rows have {width}"
        )
    data = packed.numpy()
    if bits == 8:
        values = data
    elif bits == 4:
        both = np.empty((rows, width, 2), dtype=np.uint8)
        np.bitwise_and(data, 15, out=both[:, :, 0])
        np.right_shift(data, 4, out=both[:, :, 1])
        values = both.reshape(rows, 2 * width)[:, :columns]
    else:
        single = np.unpackbits(data, axis=1, count=columns * bits, bitorder="little")
        values = np.packbits(single.reshape(rows, columns, bits), axis=2, bitorder="little")
        values = values.reshape(rows, columns)
    return torch.from_numpy((values.astype(np.int16) - offset).astype(np.int8))


def all_codes_valid(packed: torch.Tensor, bits: int, columns: int) -> bool:
    """Whether no packed code is ``-2^(bits-1)``, the one value of the field that is no code.

    Args:
        packed: ``(rows, ceil(columns * bits / 8))`` uint8.
        bits: 2 to 8.
        columns: codes a row.
    """
    data = packed.numpy()
    if bits == 4:
        # As in the file: a weight of millions of codes need not be spread out for this.
        return bool((data & 15).all() and (data[:, : columns // 2] >> 4).all())
    return bool((unpack(packed, bits, columns) > -_offset(bits)).all())


def _offset(bits: int) -> int:
    if not 2 <= bits <= 8:
        raise ValueError(f"bits: {bits}; valid: 2 to 8")
    return int(2 ** (bits - 1))
