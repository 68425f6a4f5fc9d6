"""OpenFst's text format, also read and written by OpenFst itself."""

import subprocess
import sys

import numpy as np
import pytest
from hybrid.lfmmi.cases import SEQUENCES, acceptors, named
from hypothesis import given, settings

from espnet_quant4.hybrid import kaldi, openfst
from espnet_quant4.hybrid.lfmmi.denominator import estimate_denominator
from espnet_quant4.hybrid.lfmmi.fst_text import read_fst, write_fst
from espnet_quant4.hybrid.openfst import FstFormatError

GRAPH = estimate_denominator(named(SEQUENCES), 3, 2)


def assert_equal(ours, theirs):
    assert ours.start == theirs.start
    np.testing.assert_allclose(ours.finals, theirs.finals, rtol=1e-6)
    for name in ("source", "target", "ilabel", "olabel"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
    np.testing.assert_allclose(ours.weight, theirs.weight, rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(fst=acceptors())
def test_what_is_written_is_read(tmp_path_factory, fst):
    path = tmp_path_factory.mktemp("fst") / "den.fst"
    write_fst(fst, path)
    read = read_fst(path)
    # States that no arc and no final cost names are not in a text.
    assert_equal(read, fst.__class__(**{**vars(fst), "finals": fst.finals[: read.num_states]}))
    assert not list(path.parent.glob("*.part"))


def test_a_start_other_than_the_first_state_stays_the_start(tmp_path):
    moved = GRAPH.__class__(**{**vars(GRAPH), "start": 5})
    write_fst(moved, tmp_path / "den.fst")
    assert_equal(read_fst(tmp_path / "den.fst"), moved)


def test_the_binary_format_is_read_too(tmp_path):
    openfst.write_fst(GRAPH, tmp_path / "den.fst")
    assert_equal(read_fst(tmp_path / "den.fst"), GRAPH)


def test_openfst_reads_the_text(tmp_path):
    try:
        kaldi.check_versions()
    except ImportError as error:  # an environment without the extra
        pytest.skip(str(error))
    write_fst(GRAPH, tmp_path / "den.fst")
    program = (
        "import sys; from pathlib import Path; from espnet_quant4.hybrid import kaldi\n"
        "kaldi.kaldifst().compile(Path(sys.argv[1]).read_text(), acceptor=False)"
        ".write(sys.argv[2])"
    )
    command = [sys.executable, "-c", program, tmp_path / "den.fst", tmp_path / "binary.fst"]
    subprocess.run(command, check=True, timeout=120)
    # OpenFst numbers states in the order in which it meets them.
    compiled = read_fst(tmp_path / "binary.fst")
    assert compiled.num_states == GRAPH.num_states
    assert sorted(zip(compiled.ilabel, compiled.weight[:, 0].round(5), strict=True)) == sorted(
        zip(GRAPH.ilabel, GRAPH.weight[:, 0].round(5), strict=True)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 1 2 2 0.5\n0 x 2 2\n", r":2: '0 x 2 2' .*source target ilabel olabel"),
        ("0 1 2\n", r":1: '0 1 2' \(3 fields\)"),
        ("\n", "without states"),
    ],
)
def test_malformed_text_is_refused(tmp_path, text, message):
    (tmp_path / "den.fst").write_text(text)
    with pytest.raises(FstFormatError, match=message):
        read_fst(tmp_path / "den.fst")
