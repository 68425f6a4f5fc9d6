"""FST files as arrays, held against what kaldifst reads and writes."""

import struct

import numpy as np
import pytest

from espnet_quant4.hybrid.kaldi import kaldifst
from espnet_quant4.hybrid.openfst import (
    FstFormatError,
    from_kaldifst,
    read_fst,
    read_kaldifst,
    to_kaldifst,
    write_fst,
)

TEXT = "0 1 3 4 0.5\n0 2 0 7 1.25\n2 2 9 0 2.5\n2 1 1 1\n1 0.75\n"


@pytest.fixture
def fst():
    return kaldifst().compile(TEXT, acceptor=False)


def test_arrays_hold_what_the_fst_holds(fst):
    arrays = from_kaldifst(fst)
    assert arrays.start == 0
    np.testing.assert_array_equal(arrays.finals, [[np.inf], [0.75], [np.inf]])
    rows = zip(arrays.source, arrays.target, arrays.ilabel, arrays.olabel, strict=True)
    assert list(rows) == [(0, 1, 3, 4), (0, 2, 0, 7), (2, 2, 9, 0), (2, 1, 1, 1)]
    np.testing.assert_array_equal(arrays.weight, [[0.5], [1.25], [2.5], [0]])
    np.testing.assert_array_equal(arrays.arcs_of_states(), [0, 2, 2, 4])


def test_there_and_back_is_the_same(fst):
    assert to_kaldifst(from_kaldifst(fst)).to_str() == fst.to_str()


def test_type_const_is_read_aligned_or_not(fst, tmp_path):
    path = tmp_path / "const.fst"
    kaldifst().StdConstFst(fst).write(str(path))
    plain = read_fst(path)
    assert to_kaldifst(plain).to_str() == fst.to_str()
    # What OpenFst before 1.4 wrote: states and arcs begin at multiples of 16 bytes.
    data = path.read_bytes()
    arcs = 16 * len(plain.source)
    states = 20 * plain.num_states
    head = bytearray(data[: -arcs - states])
    struct.pack_into("<i", head, head.index(b"standard") + len("standard"), 1)
    body = [bytes(head), data[-arcs - states : -arcs], data[-arcs:]]
    path.write_bytes(b"".join(part + b"\0" * (-len(part) % 16) for part in body[:2]) + body[2])
    assert to_kaldifst(read_fst(path)).to_str() == fst.to_str()


def test_lattices_keep_both_weights():
    fsts = kaldifst()
    lattice = fsts.Lattice()
    for _ in range(2):
        lattice.add_state()
    lattice.start = 0
    lattice.add_arc(0, fsts.LatticeArc(1, 2, fsts.LatticeWeight(0.25, 8.0), 1))
    lattice.set_final(1, fsts.LatticeWeight(0.5, 0.0))
    arrays = from_kaldifst(lattice)
    np.testing.assert_array_equal(arrays.weight, [[0.25, 8.0]])
    np.testing.assert_array_equal(arrays.finals[1], [0.5, 0.0])
    with pytest.raises(FstFormatError, match="weights of 2 values"):
        write_fst(arrays, "never.fst")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"0 1 3 4\n", "no binary OpenFst file.*fstcompile"),
        (lambda data: data[:-5], "ends too early"),
        (lambda data: data.replace(b"standard", b"log64std"), "arcs 'log64std'; valid"),
    ],
)
def test_other_files_are_refused(fst, tmp_path, change, message):
    path = tmp_path / "a.fst"
    write_fst(from_kaldifst(fst), path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(FstFormatError, match=message):
        read_fst(path)


def test_symbol_tables_inside_are_refused(fst, tmp_path):
    path = tmp_path / "a.fst"
    write_fst(from_kaldifst(fst), path)
    data = bytearray(path.read_bytes())
    struct.pack_into("<i", data, data.index(b"standard") + len("standard") + 4, 1)
    path.write_bytes(data)
    with pytest.raises(FstFormatError, match="clear_isymbols"):
        read_fst(path)


def test_a_file_that_is_cut_off_between_two_states_is_refused(tmp_path):
    path = tmp_path / "x.fst"
    fst = kaldifst().compile("0 1 1 1\n1 2 2 2\n2 0\n", acceptor=False)
    fst.write(str(path))
    # The last state has no arc: its final cost and a count.
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(FstFormatError, match="2 of 3 states"):
        read_fst(path)
    with pytest.raises(FstFormatError, match="no FST in OpenFst's binary form"):
        read_kaldifst(path)
    with pytest.raises(FileNotFoundError):
        read_kaldifst(tmp_path / "none.fst")
