"""Decoding files of scores by the commands: what is written, what is kept, what is refused."""

import json

import kaldiio
import numpy as np
import pytest
from hybrid.small_world import (
    LEXICON,
    exhaustive_search,
    triphone_tree_bytes,
    write_gmm,
    write_lang,
)

from espnet_quant4.bin import hybrid_decode, hybrid_graph, hybrid_lm, hybrid_rescore
from espnet_quant4.bin.command import run_command
from espnet_quant4.hybrid.decode import job
from espnet_quant4.hybrid.decode.language_models import load_language_model
from espnet_quant4.hybrid.decode.nbest_list import read_nbest
from espnet_quant4.hybrid.kaldi_files.tree import read_tree
from espnet_quant4.hybrid.openfst import from_kaldifst

PHRASES = ["a b", "b a", "a", "bee", "ab"]
SCALE = 0.5
UTTERANCES = 6


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Graphs of a phrase grammar and of a bigram, and scores of triphone states."""
    folder = tmp_path_factory.mktemp("world")
    write_lang(folder / "lang")
    write_gmm(folder / "tri", triphone_tree_bytes())
    rows = [f"u{n} {phrase}\n" for n, phrase in enumerate(PHRASES)]
    (folder / "text").write_text("".join(rows))
    text, lang = str(folder / "text"), str(folder / "lang")
    common = ["--lang", lang, "--gmm", str(folder / "tri")]
    for order in ("1", "2"):
        lm = str(folder / f"{order}.arpa")
        assert (
            hybrid_lm.main(["--text", text, "--lang", lang, "--order", order, "--output", lm]) == 0
        )
    bigram = ["--lm", str(folder / "2.arpa"), "--output", str(folder / "bigram")]
    assert hybrid_graph.main([*common, *bigram]) == 0
    phrases = ["--phrases", text, "--output", str(folder / "phrases")]
    assert hybrid_graph.main([*common, *phrases]) == 0
    rng = np.random.default_rng(0)
    write_scores(
        folder / "scores",
        {
            f"utt-{n}": np.log(rng.dirichlet(np.full(9, 0.5), size=7)).astype(np.float32)
            for n in range(UTTERANCES)
        },
    )
    return folder


def write_scores(name, matrices):
    with kaldiio.WriteHelper(f"ark,scp:{name}.ark,{name}.scp") as writer:
        for key, matrix in matrices.items():
            writer(key, matrix)


def decode(world, output, *more, graph="phrases", scores="scores.scp"):
    options = ["--graph", world / graph, "--scores", world / scores, "--output", output]
    options += ["--acoustic_scale", SCALE, "--beam", "100", "--lattice_beam", "50", *more]
    return run_command("hybrid-decode", hybrid_decode.main, [str(option) for option in options])


def texts(folder):
    lines = (folder / "text").read_text().splitlines()
    return {line.split()[0]: tuple(line.split()[1:]) for line in lines}


def phrase_costs():
    assert {word for word, *_ in LEXICON} == {w for phrase in PHRASES for w in phrase.split()}
    return {tuple(phrase.split()): np.log(len(PHRASES)) for phrase in PHRASES}


@pytest.mark.parametrize("nbest", [1, 4])
def test_the_text_is_that_of_exhaustive_search(world, tmp_path, nbest):
    assert decode(world, tmp_path, "--nbest", nbest) == 0
    tree = read_tree(world / "tri/tree")
    found = texts(tmp_path)
    entries, acoustic_scale = read_nbest([tmp_path / "nbest"])
    assert acoustic_scale == SCALE and list(found) == list(entries)
    for utterance, scores in kaldiio.load_scp(str(world / "scores.scp")).items():
        every = exhaustive_search(phrase_costs(), tree, scores, SCALE)
        ranked = sorted(every, key=lambda words: sum(every[words]))
        assert found[utterance] == ranked[0]
        assert [entry.words for entry in entries[utterance]] == ranked[:nbest]
        for entry in entries[utterance]:
            acoustic, graph = every[entry.words]
            assert entry.acoustic_cost == pytest.approx(acoustic / SCALE, abs=1e-2)
            assert entry.graph_cost == pytest.approx(graph, abs=3e-3)
    search, audio = map(float, (tmp_path / "seconds").read_text().split())
    assert 0 < search < 10 and audio == pytest.approx(0.07 * UTTERANCES)
    assert (tmp_path / "failed.txt").read_text() == (tmp_path / "partial.txt").read_text() == ""


def test_an_interrupted_decoding_is_taken_up(world, tmp_path, monkeypatch, capsys):
    whole = tmp_path / "whole"
    assert decode(world, whole) == 0
    original, calls = job.Searcher.__call__, []

    def interrupted(self, scores):
        calls.append(None)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(self, scores)

    monkeypatch.setattr(job.Searcher, "__call__", interrupted)
    part = tmp_path / "part"
    assert decode(world, part) == 130
    assert not (part / "text").exists()
    # The interruption may also come in the middle of a line.
    with open(part / job.JOURNAL, "a") as journal:
        journal.write('{"utterance": "utt-3", "fra')
    assert decode(world, part) == 0
    assert len(calls) == 4 + UTTERANCES - 3
    assert (part / "text").read_text() == (whole / "text").read_text()
    assert (part / "nbest/lm_cost").read_text() == (whole / "nbest/lm_cost").read_text()
    # Nothing is left to do for a third run; other options begin anew.
    assert decode(world, part) == 0
    assert len(calls) == 4 + UTTERANCES - 3
    assert "made anew" not in capsys.readouterr().out
    assert decode(world, part, "--max_active", "50") == 0
    assert len(calls) == 4 + 2 * UTTERANCES - 3
    assert "made anew, since --max_active is 50, not 7000" in capsys.readouterr().out


def test_utterances_that_do_not_end_and_that_fail_are_listed(world, tmp_path, capsys):
    good = np.full((7, 9), -2.0, dtype=np.float32)
    bad = good.copy()
    bad[2, 1] = np.nan
    # One frame is too short for any phrase; the search keeps what it has.
    matrices = {"good": good, "bad": bad, "short": good[:1]}
    write_scores(world / "odd", matrices)
    assert decode(world, tmp_path, scores="odd.scp") == 0
    said = capsys.readouterr().out
    assert "1 utterances end where the graph lets none" in said
    assert "1 utterances have no hypothesis" in said
    assert (tmp_path / "partial.txt").read_text() == "short\n"
    assert (tmp_path / "failed.txt").read_text().startswith("bad the scores hold NaN")
    found = texts(tmp_path)
    assert list(found) == ["good", "bad", "short"] and found["bad"] == () and found["good"]
    assert read_nbest([tmp_path / "nbest"])[0]["bad"] == []


def test_scores_and_trees_of_another_system_are_refused(world, tmp_path, capsys):
    write_scores(world / "other", {"u": np.zeros((5, 12), dtype=np.float32)})
    assert decode(world, tmp_path / "a", scores="other.scp") == 1
    assert "scores of 12 pdfs, but" in capsys.readouterr().err
    write_gmm(tmp_path / "mono")
    assert decode(world, tmp_path / "b", "--tree", tmp_path / "mono/tree") == 1
    assert "made for another tree" in capsys.readouterr().err
    assert decode(world, tmp_path / "c", "--tree", world / "tri/tree") == 0
    assert decode(world, tmp_path / "d", "--nbest", "0") == 1
    assert "nbest 0: valid are numbers above 0" in capsys.readouterr().err
    (world / "empty.scp").write_text("")
    assert decode(world, tmp_path / "e", scores="empty.scp") == 1
    assert "empty.scp: no utterance in it" in capsys.readouterr().err


def test_rescoring_replaces_the_graphs_language_model(world, tmp_path):
    """With weight 1 the bigram graph's costs become those of the unigram."""
    new = ["--lm_rescore", world / "1.arpa", "--lm_weight", "1"]
    assert decode(world, tmp_path, "--nbest", "8", *new, graph="bigram") == 0
    entries, _ = read_nbest([tmp_path / "nbest"])
    unigram = load_language_model(world / "1.arpa")
    bigram = load_language_model(world / "bigram/G.fst")
    for utterance, words in texts(tmp_path).items():
        costs = {
            e.words: SCALE * e.acoustic_cost + e.graph_cost + unigram(e.words) - bigram(e.words)
            for e in entries[utterance]
        }
        assert words == min(costs, key=costs.get)
    plain = tmp_path / "plain"
    assert decode(world, plain, "--nbest", "8", graph="bigram") == 0
    assert texts(plain) != texts(tmp_path)


def test_what_is_tuned_on_dev_is_taken_for_test(world, tmp_path, capsys):
    assert decode(world, tmp_path / "dev", "--nbest", "8", graph="bigram") == 0
    entries, _ = read_nbest([tmp_path / "dev/nbest"])
    # The longest hypotheses are right, so a negative penalty has to be found.
    longest = {u: max(e, key=lambda entry: len(entry.words)).words for u, e in entries.items()}
    lines = [" ".join([utterance, *words]) for utterance, words in longest.items()]
    (tmp_path / "reference").write_text("".join(f"{line}\n" for line in lines))
    grid = ["--lm_scale", "1", "2", "--word_insertion_penalty", "0", "3", "-20"]
    tune = ["--tune_on", tmp_path / "reference", "--output", tmp_path / "dev", *grid]
    nbest = ["--nbest", tmp_path / "dev/nbest"]
    assert (
        run_command("hybrid-rescore", hybrid_rescore.main, [str(a) for a in [*nbest, *tune]]) == 0
    )
    assert "lm_scale" in capsys.readouterr().out
    tuned = json.loads((tmp_path / "dev/tuned.json").read_text())
    assert tuned["word_insertion_penalty"] == -20
    tuned_text = (tmp_path / "dev/text").read_text()
    test = ["--output", tmp_path / "test", "--tuned", tmp_path / "dev/tuned.json"]
    assert (
        run_command("hybrid-rescore", hybrid_rescore.main, [str(a) for a in [*nbest, *test]]) == 0
    )
    assert (tmp_path / "test/text").read_text() == tuned_text
    lengths = {u: len(words) for u, words in texts(tmp_path / "test").items()}
    assert lengths == {u: len(words) for u, words in longest.items()}
    again = ["--nbest", "8", "--tuned", tmp_path / "dev/tuned.json"]
    assert decode(world, tmp_path / "again", *again, graph="bigram") == 0
    assert (tmp_path / "again/text").read_text() == tuned_text


def test_lists_of_parallel_jobs_are_rescored_together(world, tmp_path):
    lines = (world / "scores.scp").read_text().splitlines(keepends=True)
    for number, part in enumerate((lines[:2], lines[2:])):
        (world / f"part{number}.scp").write_text("".join(part))
        assert (
            decode(world, tmp_path / str(number), "--nbest", "3", scores=f"part{number}.scp") == 0
        )
    assert decode(world, tmp_path / "whole", "--nbest", "3") == 0
    folders = [str(tmp_path / str(number) / "nbest") for number in range(2)]
    assert (
        run_command(
            "hybrid-rescore",
            hybrid_rescore.main,
            ["--nbest", *folders, "--output", str(tmp_path / "merged")],
        )
        == 0
    )
    assert (tmp_path / "merged/text").read_text() == (tmp_path / "whole/text").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lm_scale", "1", "2"], "several values of an option need --tune_on"),
        (["--lm_weight", "0.5"], "without a new language model; give --lm_rescore"),
        (["--lm_weight", "2"], "lm_weight 2.0: valid are numbers from 0 to 1"),
        (["--lm_scale", "0"], "lm_scale 0.0: valid are numbers above 0"),
        (["--lm_rescore", "{world}/1.arpa"], "--lm_rescore needs --old_lm"),
        (["--lm_rescore", "lm.bin"], "lm.bin: no language model by its ending; valid: .arpa"),
        (["--tune_on", "{world}/text"], "hold different utterances, such as u0"),
    ],
)
def test_rescoring_options_that_make_no_sense(world, tmp_path, capsys, options, message):
    assert decode(world, tmp_path, "--nbest", "2") == 0
    options = [option.format(world=world) for option in options]
    nbest = ["--nbest", str(tmp_path / "nbest"), "--output", str(tmp_path / "out")]
    assert run_command("hybrid-rescore", hybrid_rescore.main, [*nbest, *options]) == 1
    assert message in capsys.readouterr().err


def test_the_search_graph_has_a_label_for_each_pdf(world):
    from espnet_quant4.hybrid.graph.graph_directory import Graph

    labels = np.unique(from_kaldifst(Graph(world / "bigram").load()).ilabel)
    assert labels.tolist() == list(range(10))
