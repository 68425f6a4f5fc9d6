"""HCLG against all paths of a tiny world, listed one by one."""

import itertools

import numpy as np
import pytest
from hybrid.small_world import (
    DISAMBIGUATION,
    WORDS,
    exhaustive_search,
    lexicon_fst,
    monophone_tree,
    transition_model,
    triphone_tree_bytes,
)

from espnet_quant4.hybrid.decode.search import Searcher, SearchOptions
from espnet_quant4.hybrid.graph import hclg as module
from espnet_quant4.hybrid.graph.graph_directory import relabel
from espnet_quant4.hybrid.graph.hclg import GraphError, build_hclg
from espnet_quant4.hybrid.kaldi import kaldifst
from espnet_quant4.hybrid.kaldi_files.tree import read_tree
from espnet_quant4.hybrid.openfst import from_kaldifst, to_kaldifst

COSTS = {"a": 1.2, "ab": 1.5, "b": 1.9, "bee": 1.4}
STOP = 0.7


def unigrams(words=COSTS):
    """Any number of words, each at its cost."""
    lines = [f"0 0 {WORDS[w]} {WORDS[w]} {c}" for w, c in words.items()]
    return kaldifst().compile("\n".join([*lines, f"0 {STOP}", ""]), acceptor=False)


def sentences(longest=2):
    return {
        words: sum(COSTS[w] for w in words) + STOP
        for length in range(longest + 1)
        for words in itertools.product(COSTS, repeat=length)
    }


@pytest.fixture(params=["monophone", "triphone"])
def tree(request, tmp_path):
    if request.param == "monophone":
        return monophone_tree()
    (tmp_path / "tree").write_bytes(triphone_tree_bytes())
    return read_tree(tmp_path / "tree")


def random_scores(tree, frames, seed):
    rng = np.random.default_rng(seed)
    return np.log(rng.dirichlet(np.full(tree.num_pdfs, 0.3), size=frames)).astype(np.float32)


def searcher(hclg, model, **options):
    id2pdf = np.array(model.transition_id_to_pdf_array(), dtype=np.int32)
    graph = to_kaldifst(relabel(from_kaldifst(hclg), id2pdf, "HCLG"))
    return Searcher(graph, SearchOptions(beam=200, **options))


@pytest.mark.parametrize("self_loop_scale", [0.1, 1.0])
def test_the_best_path_is_that_of_exhaustive_search(tree, self_loop_scale):
    model = transition_model(tree)
    hclg = build_hclg(
        lexicon_fst(), unigrams(), DISAMBIGUATION, tree, model, self_loop_scale=self_loop_scale
    )
    search = searcher(hclg, model, acoustic_scale=0.8)
    names = {number: word for word, number in WORDS.items()}
    for seed in range(5):
        scores = random_scores(tree, 6, seed)
        every = exhaustive_search(sentences(), tree, scores, 0.8, self_loop_scale)
        wanted = min(every, key=lambda words: sum(every[words]))
        found = search(scores)
        (hypothesis,) = found.hypotheses
        assert found.reached_final
        assert tuple(names[word] for word in hypothesis.words) == wanted
        costs = (hypothesis.acoustic_cost, hypothesis.graph_cost)
        assert costs == pytest.approx(every[wanted], abs=2e-3)


def test_the_nbest_list_is_that_of_exhaustive_search(tree):
    model = transition_model(tree)
    hclg = build_hclg(lexicon_fst(), unigrams(), DISAMBIGUATION, tree, model)
    search = searcher(hclg, model, acoustic_scale=0.5, lattice_beam=100.0, nbest=6)
    names = {number: word for word, number in WORDS.items()}
    scores = random_scores(tree, 6, 11)
    every = exhaustive_search(sentences(3), tree, scores, 0.5)
    wanted = sorted(every, key=lambda words: sum(every[words]))[:6]
    found = search(scores).hypotheses
    assert [tuple(names[word] for word in h.words) for h in found] == wanted
    for hypothesis, words in zip(found, wanted, strict=True):
        costs = (hypothesis.acoustic_cost, hypothesis.graph_cost)
        assert costs == pytest.approx(every[words], abs=2e-3)


def test_every_state_but_silence_depends_on_context_in_the_triphone_graph(tmp_path):
    (tmp_path / "tree").write_bytes(triphone_tree_bytes())
    tree = read_tree(tmp_path / "tree")
    assert (tree.num_pdfs, tree.context_width) == (9, 3)
    model = transition_model(tree)
    hclg = build_hclg(lexicon_fst(), unigrams({"a": 1.0}), DISAMBIGUATION, tree, model)
    id2pdf = np.array(model.transition_id_to_pdf_array())
    # Without B, A stands before nothing but A and silence.
    assert set(id2pdf[np.unique(from_kaldifst(hclg).ilabel)[1:]]) == {0, 3, 4}


def test_no_disambiguation_symbol_is_left(tree):
    model = transition_model(tree)
    hclg = build_hclg(lexicon_fst(), unigrams(), DISAMBIGUATION, tree, model)
    arrays = from_kaldifst(hclg)
    assert 0 < arrays.ilabel.max() <= model.num_transition_ids
    assert set(arrays.olabel.tolist()) == {0, *(WORDS[word] for word in COSTS)}


def test_a_grammar_of_other_words_is_an_error():
    tree = monophone_tree()
    grammar = kaldifst().compile("0 1 99 99\n1\n", acceptor=False)
    with pytest.raises(GraphError, match="no word of the grammar"):
        build_hclg(lexicon_fst(), grammar, DISAMBIGUATION, tree, transition_model(tree))


def test_homophones_without_disambiguation_symbols_are_an_error():
    text = lexicon_fst().to_str(show_weight_one=True)
    rows = [line.split() for line in text.splitlines()]
    without = [
        [0 if i == 2 and cell in ("5", "6") else cell for i, cell in enumerate(r)] for r in rows
    ]
    lexicon = kaldifst().compile("\n".join(" ".join(map(str, r)) for r in without), acceptor=False)
    tree = monophone_tree()
    with pytest.raises(GraphError, match="L o G: not determinized: FST was not functional"):
        build_hclg(lexicon, unigrams(), DISAMBIGUATION, tree, transition_model(tree))


def test_determinization_without_end_is_stopped(monkeypatch):
    monkeypatch.setattr(module, "MAX_STATES", 5)
    tree = monophone_tree()
    with pytest.raises(GraphError, match="L o G: not determinized: .* 5 states"):
        build_hclg(lexicon_fst(), unigrams(), DISAMBIGUATION, tree, transition_model(tree))
