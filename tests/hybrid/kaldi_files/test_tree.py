import hashlib

import pytest
from hybrid.small_world import monophone_tree, triphone_tree_bytes

from espnet_quant4.hybrid.kaldi_files.tokens import KaldiFileError
from espnet_quant4.hybrid.kaldi_files.tree import read_tree, tree_md5


def test_kaldi_reads_the_bytes_of_a_tree(tmp_path):
    path = tmp_path / "tree"
    path.write_bytes(triphone_tree_bytes())
    tree = read_tree(path)
    assert (tree.context_width, tree.central_position, tree.num_pdfs) == (3, 1, 9)
    assert tree.compute([1, 2, 3], 0) == (True, 1)  # A before B
    assert tree.compute([1, 2, 1], 1) == (True, 4)  # A before silence
    assert tree.compute([2, 3, 0], 1) == (True, 6)  # B after A
    monophone_tree().write(True, str(path))
    assert read_tree(path).num_pdfs == 5


def test_the_sum_is_that_of_md5sum(tmp_path):
    path = tmp_path / "tree"
    path.write_bytes(triphone_tree_bytes())
    assert tree_md5(path) == hashlib.md5(triphone_tree_bytes()).hexdigest()


def test_a_text_tree_is_refused_with_the_way_to_convert_it(tmp_path):
    path = tmp_path / "tree"
    monophone_tree().write(False, str(path))
    with pytest.raises(KaldiFileError, match="copy-tree --binary=true"):
        read_tree(path)
