"""A user's own Kaldi: its alignments and its graph become the folders of this package."""

import gzip

import numpy as np
import pytest
from hybrid.kaldi_files.test_alignment import binary_archive, text_archive
from hybrid.kaldi_files.test_transition_model import binary
from hybrid.small_world import transition_model, triphone_tree_bytes, write_gmm, write_lang

from espnet_quant4.bin import hybrid_graph, hybrid_import
from espnet_quant4.bin.command import run_command
from espnet_quant4.hybrid.graph.graph_directory import Graph
from espnet_quant4.hybrid.kaldi import kaldifst
from espnet_quant4.hybrid.kaldi_files.tree import read_tree

ALIGNMENTS = {"u1": [2, 1, 4, 3], "u2": [12, 11, 11, 14], "u3": [2]}


@pytest.fixture
def kaldi(tmp_path):
    """A folder as Kaldi's: binary model, alignments of two jobs, one of them in text form."""
    folder = tmp_path / "tri_ali"
    write_gmm(folder, triphone_tree_bytes())
    model = transition_model(read_tree(folder / "tree"))
    (folder / "final.mdl").write_bytes(binary(model))
    first, second = dict(list(ALIGNMENTS.items())[:2]), dict(list(ALIGNMENTS.items())[2:])
    (folder / "ali.1.gz").write_bytes(gzip.compress(binary_archive(first)))
    (folder / "ali.2.gz").write_bytes(gzip.compress(text_archive(second)))
    return folder, model


def run(*arguments):
    return run_command(
        "hybrid-import", hybrid_import.main, [str(argument) for argument in arguments]
    )


def read_ids(path):
    rows = (line.split() for line in path.read_text().splitlines())
    return {key: [int(number) for number in ids] for key, *ids in rows}


def test_alignments_become_pdf_ids(kaldi, tmp_path, capsys):
    folder, model = kaldi
    output = tmp_path / "ali"
    assert run("alignments", "--ali", folder, "--output", output, "--snip_edges", "false") == 0
    assert "3 utterances, 9 frames" in capsys.readouterr().out
    wanted = {u: [model.transition_id_to_pdf(i) for i in ids] for u, ids in ALIGNMENTS.items()}
    assert read_ids(output / "pdf_ids") == wanted
    counts = np.bincount([pdf for pdfs in wanted.values() for pdf in pdfs], minlength=9)
    assert (output / "pdf_counts").read_text().split()[1:-1] == list(map(str, counts))
    assert (output / "num_pdfs").read_text() == "9\n"
    assert (output / "tree").read_bytes() == triphone_tree_bytes()
    assert (output / "failed.txt").read_text() == ""
    again = ["alignments", "--ali", folder, "--output", output]
    assert run(*again, "--snip_edges", "false") == 0
    assert "there already" in capsys.readouterr().out
    assert run(*again) == 0
    assert "made anew, since --snip_edges is true, not false" in capsys.readouterr().out


def test_edges_that_kaldi_snipped_are_repeated(kaldi, tmp_path):
    folder, _ = kaldi
    assert run("alignments", "--ali", folder, "--output", tmp_path / "snipped") == 0
    run("alignments", "--ali", folder, "--output", tmp_path / "whole", "--snip_edges", "false")
    whole = read_ids(tmp_path / "whole/pdf_ids")
    padded = {u: [ids[0], *ids, ids[-1]] for u, ids in whole.items()}
    assert read_ids(tmp_path / "snipped/pdf_ids") == padded


def test_only_a_data_folders_utterances_are_taken(kaldi, tmp_path, capsys):
    folder, _ = kaldi
    (tmp_path / "text").write_text("u1 a\nu9 b\n")
    output = tmp_path / "ali"
    assert run("alignments", "--ali", folder, "--output", output, "--data", tmp_path) == 0
    assert list(read_ids(output / "pdf_ids")) == ["u1"]
    assert (output / "failed.txt").read_text() == f"u9 no alignment in {folder}\n"
    assert "1 utterances have no alignment" in capsys.readouterr().out
    (tmp_path / "text").write_text("u9 b\n")
    assert run("alignments", "--ali", folder, "--output", output, "--data", tmp_path) == 1
    assert "no alignment of the 1 utterances" in capsys.readouterr().err


def test_alignments_of_another_model_are_refused(kaldi, tmp_path, capsys):
    folder, _ = kaldi
    write_gmm(tmp_path / "mono")
    arguments = ["--ali", folder, "--model", tmp_path / "mono", "--output", tmp_path / "ali"]
    assert run("alignments", *arguments) == 1
    assert "u2 of" in (said := capsys.readouterr().err) and "the model has 1 to 10" in said
    assert run("alignments", "--ali", tmp_path, "--output", tmp_path / "ali") == 1
    assert "no ali.*.gz in it" in capsys.readouterr().err


def test_a_graph_is_taken_with_its_grammar(kaldi, tmp_path, capsys):
    folder, _ = kaldi
    lang = write_lang(tmp_path / "lang")
    (tmp_path / "text").write_text("u1 a b\nu2 b\n")
    common = ["--lang", lang, "--phrases", tmp_path / "text", "--gmm", folder]
    ours = [*common, "--output", tmp_path / "ours"]
    assert hybrid_graph.main([str(a) for a in ours]) == 0
    theirs = folder / "graph"
    theirs.mkdir()
    made = kaldifst().StdVectorFst.read(str(tmp_path / "ours/HCLG.fst"))
    kaldifst().StdConstFst(made).write(str(theirs / "HCLG.fst"))
    for name in ("words.txt", "phones.txt"):
        (theirs / name).write_bytes((lang / name).read_bytes())
    output = tmp_path / "graph"
    grammar = ["--grammar", tmp_path / "ours/G.fst"]
    assert run("graph", "--graph", theirs, "--output", output, *grammar) == 0
    assert "9 pdfs" in capsys.readouterr().out
    graph = Graph(output)
    graph.check_tree(folder / "tree")
    assert graph.load().to_str() == Graph(tmp_path / "ours").load().to_str()
    assert (output / "G.fst").read_bytes() == (tmp_path / "ours/G.fst").read_bytes()
    (theirs / "HCLG.fst").write_text("0 1 1 1\n")
    assert run("graph", "--graph", theirs, "--output", output) == 1
    assert "no binary OpenFst file" in capsys.readouterr().err
