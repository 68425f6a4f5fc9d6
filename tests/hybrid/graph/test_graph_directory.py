"""The graph folder, and commands that make it: what it holds, and graphs of another tree."""

import numpy as np
import pytest
from hybrid.small_world import WORDS, triphone_tree_bytes, write_gmm, write_lang

from espnet_quant4.bin import hybrid_graph, hybrid_lm
from espnet_quant4.bin.command import run_command
from espnet_quant4.hybrid.graph.arpa import write_arpa
from espnet_quant4.hybrid.graph.graph_directory import Graph, write_graph_directory
from espnet_quant4.hybrid.graph.hclg import GraphError
from espnet_quant4.hybrid.graph.ngram import estimate
from espnet_quant4.hybrid.kaldi import kaldifst
from espnet_quant4.hybrid.kaldi_files.tree import tree_md5
from espnet_quant4.hybrid.openfst import read_fst

TEXT = "u1 a b a\nu2 b\nu3 ab z\nu4\nu5 bee\n"


@pytest.fixture
def world(tmp_path):
    write_lang(tmp_path / "lang")
    write_gmm(tmp_path / "mono")
    write_gmm(tmp_path / "tri", triphone_tree_bytes())
    (tmp_path / "text").write_text(TEXT)
    lm = [
        "--text",
        tmp_path / "text",
        "--lang",
        tmp_path / "lang",
        "--output",
        tmp_path / "lm.arpa",
    ]
    assert hybrid_lm.main([*map(str, lm), "--dev_text", str(tmp_path / "text")]) == 0
    return tmp_path


def make(world, gmm, *more, grammar="--lm"):
    source = world / ("lm.arpa" if grammar == "--lm" else "text")
    options = ["--lang", world / "lang", grammar, source, "--gmm", world / gmm]
    options += ["--output", world / gmm / "graph", *more]
    return run_command("hybrid-graph", hybrid_graph.main, [str(option) for option in options])


def test_the_lm_command_tells_what_it_maps_and_leaves_out(world, capsys):
    lm = ["--text", world / "text", "--lang", world / "lang", "--output", world / "lm2.arpa"]
    assert hybrid_lm.main([*map(str, lm), "--order", "3", "--dev_text", str(world / "text")]) == 0
    said = capsys.readouterr().out
    # "bee" stands for unknown words in this lang folder, so it counts as one itself.
    assert "2 words of the transcripts, 2 times in all, 28.6% of 7, have no pronunciation" in said
    assert "z (1), bee (1); they count as bee" in said
    assert "1 utterances without words are left out" in said
    assert "perplexity" in said and "3 3-grams" not in said.split("perplexity")[0]


@pytest.mark.parametrize(("gmm", "num_pdfs"), [("mono", 5), ("tri", 9)])
def test_a_graph_folder_has_all_parts(world, gmm, num_pdfs, capsys):
    assert make(world, gmm) == 0
    said = capsys.readouterr().out
    assert "HCLG:" in said and "written:" in said
    graph = Graph(world / gmm / "graph")
    assert graph.num_pdfs == num_pdfs
    assert graph.tree_md5 == tree_md5(world / gmm / "tree")
    assert graph.id2pdf[0] == -1 and set(graph.id2pdf[1:].tolist()) == set(range(num_pdfs))
    assert graph.words == {number: word for word, number in WORDS.items()}
    hclg = read_fst(graph.folder / "HCLG.fst")
    assert 0 < hclg.ilabel.max() < len(graph.id2pdf)
    loaded = graph.load()
    assert isinstance(loaded, kaldifst().StdConstFst) and loaded.start == hclg.start
    assert (graph.folder / "phones.txt").read_text() == (world / "lang/phones.txt").read_text()


def test_a_second_run_keeps_the_graph_until_something_changes(world, capsys):
    assert make(world, "mono") == 0
    made = (world / "mono/graph/HCLG.fst").stat().st_mtime_ns
    capsys.readouterr()
    assert make(world, "mono") == 0
    assert "there already, made of the same files and options" in capsys.readouterr().out
    assert (world / "mono/graph/HCLG.fst").stat().st_mtime_ns == made
    assert make(world, "mono", "--self_loop_scale", "1.0") == 0
    assert "made anew, since --self_loop_scale is 1.0, not 0.1" in capsys.readouterr().out
    assert (world / "mono/graph/HCLG.fst").stat().st_mtime_ns > made
    # Files count by their content.
    (world / "lm.arpa").touch()
    assert make(world, "mono", "--self_loop_scale", "1.0") == 0
    assert "there already" in capsys.readouterr().out
    write_arpa(estimate([["a"], ["b"]], ["a", "b"], 1), world / "lm.arpa")
    assert make(world, "mono", "--self_loop_scale", "1.0") == 0
    assert f"made anew, since {world}/lm.arpa changed" in capsys.readouterr().out


def test_a_graph_of_unknown_origin_is_not_written_over(world, capsys):
    (world / "mono/graph").mkdir()
    (world / "mono/graph/HCLG.fst").write_text("a user's own")
    assert make(world, "mono") == 1
    assert "HCLG.fst is there, and no made_from.json" in capsys.readouterr().err
    assert (world / "mono/graph/HCLG.fst").read_text() == "a user's own"


def test_phrases_are_another_grammar(world, capsys):
    assert make(world, "mono", grammar="--phrases") == 0
    assert "1 sentences with words without pronunciation are left out" in capsys.readouterr().out
    assert (world / "mono/graph/left_out.txt").read_text() == "ab z\n"


def test_a_graph_for_another_tree_is_detected(world):
    assert make(world, "mono") == 0
    graph = Graph(world / "mono/graph")
    graph.check_tree(world / "mono/tree")
    graph.check_num_pdfs(5, "scores.scp")
    with pytest.raises(GraphError, match="made for another tree than .*tri/tree .*hybrid_graph"):
        graph.check_tree(world / "tri/tree")
    with pytest.raises(GraphError, match="scores.scp: scores of 9 pdfs, but .* a tree with 5"):
        graph.check_num_pdfs(9, "scores.scp")


def test_a_graph_of_a_users_own_kaldi_may_be_of_type_const(world):
    assert make(world, "tri") == 0
    own = world / "kaldi.fst"
    made = kaldifst().StdVectorFst.read(str(world / "tri/graph/HCLG.fst"))
    kaldifst().StdConstFst(made).write(str(own))
    lang = world / "lang"
    parts = (lang / "words.txt", lang / "phones.txt", world / "tri/final.mdl", world / "tri/tree")
    write_graph_directory(world / "imported", own, *parts)
    ours, theirs = Graph(world / "tri/graph").load(), Graph(world / "imported").load()
    assert ours.to_str() == theirs.to_str()


def test_a_graph_with_another_models_transition_ids_is_an_error(world):
    assert make(world, "tri") == 0
    lang = world / "lang"
    parts = (lang / "words.txt", lang / "phones.txt", world / "mono/final.mdl", world / "mono/tree")
    with pytest.raises(GraphError, match="HCLG.fst has transition id .* its id2pdf only 10"):
        write_graph_directory(world / "wrong", world / "tri/graph/HCLG.fst", *parts)
    assert not (world / "wrong/HCLG.fst").exists()
    np.savetxt(world / "tri/graph/id2pdf", [[-1, 0, 0]], fmt="%d")
    with pytest.raises(GraphError, match="of different models"):
        Graph(world / "tri/graph").load()


def test_what_is_missing_or_damaged_is_named(world, capsys):
    (world / "mono/tree").unlink()
    assert make(world, "mono") == 1
    assert "mono/tree" in capsys.readouterr().err
    (world / "tri/final.mdl").write_text("nothing")
    assert make(world, "tri") == 1
    assert "final.mdl: 'nothing' at byte 0 where <TransitionModel>" in capsys.readouterr().err
    with pytest.raises(GraphError, match="hybrid_graph makes a graph folder"):
        Graph(world / "nowhere").load()
