"""Matrices of script files: what cannot be read is named."""

import kaldiio
import numpy as np
import pytest

from espnet_quant4.hybrid.kaldi_files.archives import Matrices
from espnet_quant4.hybrid.kaldi_files.tokens import KaldiFileError

VALUES = {"u1": np.eye(3, dtype=np.float32), "u2": np.ones((40, 2), dtype=np.float32)}


@pytest.fixture
def scp(tmp_path):
    with kaldiio.WriteHelper(f"ark,scp:{tmp_path}/s.ark,{tmp_path}/s.scp") as writer:
        for key, matrix in VALUES.items():
            writer(key, matrix)
    return tmp_path / "s.scp"


def test_matrices_are_those_that_were_written(scp):
    found = Matrices(scp)
    assert list(found) == list(VALUES)
    for key, matrix in VALUES.items():
        np.testing.assert_array_equal(found[key], matrix)


@pytest.mark.parametrize("left", [0, 10, 60, 100, -5, None])
def test_a_damaged_or_missing_archive_is_named(scp, left):
    ark = scp.with_suffix(".ark")
    if left is None:
        ark.unlink()
    else:
        ark.write_bytes(ark.read_bytes()[:left])
    with pytest.raises(KaldiFileError, match=r"s\.scp:2: u2: .*s\.ark:\d+: cannot be read"):
        Matrices(scp)["u2"]


def test_what_is_no_matrix_is_named(scp, tmp_path):
    kaldiio.save_ark(str(tmp_path / "v.ark"), {"u3": np.ones(4, dtype=np.float32)}, str(scp))
    with pytest.raises(KaldiFileError, match=r"s\.scp:1: u3: .*shape \(4,\)"):
        Matrices(scp)["u3"]
    scp.write_text("u1 s.ark:3\nu1 s.ark:3\n")
    with pytest.raises(ValueError, match="'u1' stands here and in line 1"):
        Matrices(scp)
