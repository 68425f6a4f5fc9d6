import gzip
import struct

import numpy as np
import pytest
from hybrid.small_world import monophone_tree, transition_model

from espnet_quant4.hybrid.kaldi_files.alignment import pdf_ids, read_alignments
from espnet_quant4.hybrid.kaldi_files.tokens import KaldiFileError
from espnet_quant4.hybrid.kaldi_files.transition_model import read_transition_model

ALIGNMENTS = {"a-1": [2, 1, 1, 4, 6], "b-2": [4], "b-3": list(range(1, 11)) * 3, "b-4": [7]}


def binary_archive(alignments):
    """As ``ali-to-phones ark:`` and the other programs of Kaldi write vectors of int32."""
    data = b""
    for key, ids in alignments.items():
        data += key.encode() + b" \0B\4" + struct.pack("<i", len(ids))
        data += b"".join(b"\4" + struct.pack("<i", i) for i in ids)
    return data


def text_archive(alignments):
    return "".join(f"{k} {' '.join(map(str, ids))} \n" for k, ids in alignments.items()).encode()


@pytest.mark.parametrize("archive", [binary_archive, text_archive])
@pytest.mark.parametrize("compress", [gzip.compress, bytes])
def test_archives_are_read(tmp_path, archive, compress):
    path = tmp_path / "ali.1.gz"
    path.write_bytes(compress(archive(ALIGNMENTS)))
    found = dict(read_alignments([path]))
    assert {key: ids.tolist() for key, ids in found.items()} == ALIGNMENTS
    assert all(ids.dtype == np.int32 for ids in found.values())


@pytest.mark.parametrize("content", [b"a-1 [ 0.5 0.25 ]\n", b"a-1 \0B\4\5\0\0\0\4\1", b"\xff\xfe"])
def test_what_is_no_alignment_is_refused(tmp_path, content):
    path = tmp_path / "ali.1.gz"
    path.write_bytes(content)
    with pytest.raises(KaldiFileError, match=r"ali\.1\.gz"):
        list(read_alignments([path]))


def random_alignments():
    rng = np.random.default_rng(0)
    return {f"u{number}": rng.integers(1, 10, 200).tolist() for number in range(20)}


@pytest.mark.parametrize("archive", [binary_archive, text_archive])
@pytest.mark.parametrize("cut", [5, 100, -1000, -9, -1])
def test_a_file_that_is_cut_off_is_refused(tmp_path, archive, cut):
    path = tmp_path / "ali.1.gz"
    path.write_bytes(gzip.compress(archive(random_alignments()))[:cut])
    with pytest.raises(
        KaldiFileError, match=r"ali\.1\.gz: no archive of alignments, or damaged: ."
    ):
        list(read_alignments([path]))
    if archive is text_archive:
        path.write_bytes(text_archive(ALIGNMENTS)[:-4])
        with pytest.raises(KaldiFileError, match=r"ali\.1\.gz: .*the last line is cut off"):
            list(read_alignments([path]))


def test_a_damaged_gzip_file_is_refused(tmp_path):
    content = bytearray(gzip.compress(text_archive(random_alignments())))
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "ali.1.gz").write_bytes(content)
    with pytest.raises(
        KaldiFileError, match=r"ali\.1\.gz: no archive of alignments, or damaged: ."
    ):
        list(read_alignments([tmp_path / "ali.1.gz"]))


def test_what_is_no_number_is_named(tmp_path):
    (tmp_path / "ali.1.gz").write_bytes(b"u1 1 2\nu2 1 x\n")
    with pytest.raises(KaldiFileError, match="line 2, u2: .*'x'"):
        list(read_alignments([tmp_path / "ali.1.gz"]))


def test_transition_ids_become_pdfs(tmp_path):
    kaldi = transition_model(monophone_tree())
    (tmp_path / "final.mdl").write_text(str(kaldi))
    model = read_transition_model(tmp_path / "final.mdl")
    ids = np.array([1, 2, 3, 4, 9, 10], dtype=np.int32)
    assert pdf_ids(ids, model).tolist() == [kaldi.transition_id_to_pdf(i) for i in ids.tolist()]
    with pytest.raises(KaldiFileError, match=r"utt: transition ids 1 to 11; the model has 1 to 10"):
        pdf_ids(np.array([1, 11], dtype=np.int32), model, "utt")
