"""Codes as bits, and back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from espnet_quant4.int4.packing import pack, unpack


@given(st.integers(2, 8), st.integers(0, 9), st.integers(0, 40), st.integers(0, 999))
def test_round_trip(bits, rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    half = 2 ** (bits - 1)
    codes = torch.randint(-half, half, (rows, columns), generator=generator).to(torch.int8)
    packed = pack(codes, bits)
    assert packed.dtype == torch.uint8 and packed.shape == (rows, (columns * bits + 7) // 8)
    assert torch.equal(unpack(packed, bits, columns), codes)


def test_four_bits_are_two_codes_a_byte_first_code_low():
    packed = pack(torch.tensor([[-7, 7, 0]], dtype=torch.int8), 4)
    assert packed.tolist() == [[1 | 15 << 4, 8]]


def test_three_bits_are_a_stream_lowest_bit_first():
    packed = pack(torch.tensor([[-3, 3, 1]], dtype=torch.int8), 3)
    stream = 1 | 7 << 3 | 5 << 6
    assert packed.tolist() == [[stream & 255, stream >> 8]]


@pytest.mark.parametrize("bits", [1, 9])
def test_bits_out_of_range(bits):
    with pytest.raises(ValueError, match=f"bits: {bits}; valid: 2 to 8"):
        pack(torch.zeros(1, 1, dtype=torch.int8), bits)


def test_codes_out_of_range_and_wrong_widths():
    with pytest.raises(ValueError, match="codes 8 to 8; valid at 4 bits are -8 to 7"):
        pack(torch.full((1, 1), 8, dtype=torch.int8), 4)
    with pytest.raises(ValueError, match="3 columns at 4 bits take 2 bytes a row"):
        unpack(torch.zeros(1, 3, dtype=torch.uint8), 4, 3)
