"""The built-in scorer counts what NIST's sclite counts, where that is installed."""

import random
import shutil

import pytest

from espnet_quant4.bin import score as command
from espnet_quant4.bin.main import main
from espnet_quant4.report import sclite
from espnet_quant4.report.scoring import ScoringError, score

SCLITE = sclite.find_sclite()
needs_sclite = pytest.mark.skipif(
    SCLITE is None, reason="sclite (Debian's package sctk) is not here"
)
# Also what sclite itself reads as markup: alternatives, optional words, fragments, comments.
ODD = ["a", "A", "b", "<UNK>", "x-", "-y", "(uh)", "{a", "a/b", "@", "it's", "é", "É", "U.S.", ";;"]
ODD += ["*", "%hes", "a_b", "1", "word*", "&", "#0", "\\", "ß", "[noise]"]


def random_texts(number, tokens, seed, longest=12):
    draw = random.Random(seed)

    def words():
        return draw.choices(tokens, k=draw.randint(0, longest))

    names = [f"s{draw.randint(0, 3)}-{n} x" if n % 2 else f"U_{n}.b" for n in range(number)]
    return {name: words() for name in names}, {name: words() for name in names}


@needs_sclite
@pytest.mark.parametrize("tokens", [["a", "b", "c"], list("abcdefgh"), ODD])
def test_counts_are_equal(tokens):
    references, hypotheses = random_texts(1500, tokens, seed=len(tokens))
    # Some nearly right, as a recognizer's: few errors in longer sentences.
    draw = random.Random(1)
    for name in list(references)[::3]:
        hypotheses[name] = [
            draw.choice([word, word, word, "b"]) for word in references[name] if draw.random() > 0.1
        ]
    result = score(references, hypotheses)
    assert any(not references[name] and hypotheses[name] for name in references)
    assert any(references[name] and not hypotheses[name] for name in references)
    assert sclite.score_counts(result, SCLITE) == result.counts
    assert sclite.sclite_counts(references, hypotheses, SCLITE) == result.counts


@needs_sclite
def test_other_utterances_are_an_error():
    with pytest.raises(ScoringError, match="different utterances, such as b"):
        sclite.sclite_counts({"a": ["x"]}, {"a": ["x"], "b": []}, SCLITE)


def test_a_program_that_scores_nothing_is_an_error():
    with pytest.raises(ScoringError, match="0 of 1 utterances scored"):
        sclite.sclite_counts({"a": ["x"]}, {"a": ["x"]}, shutil.which("true"))


@pytest.fixture
def texts(tmp_path):
    (tmp_path / "ref").write_text("amy-1 one two\nbob-2 three\nbob-3\n")
    (tmp_path / "hyp").write_text("amy-1 one too\nbob-2\nbob-3 four\n")
    return [str(tmp_path / "ref"), str(tmp_path / "hyp")]


@pytest.mark.parametrize("scorer", ["builtin", pytest.param("sclite", marks=needs_sclite)])
def test_the_command_prints_the_same_table_with_both(texts, tmp_path, capsys, scorer):
    assert command.main([*texts, "--scorer", scorer, "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert ("sclite" in said) == (scorer == "sclite")
    assert "| Sum/Avg |     3     3 |  33.3   33.3   33.3   33.3  100.0  100.0 |" in said
    assert "| bob     |     2     1 |" in said
    assert (tmp_path / "out/score_wer/hyp.trn").read_text().startswith("one too (amy-1)\n")


def test_without_sclite_the_built_in_scorer_counts_or_the_command_says_so(
    texts, monkeypatch, capsys
):
    monkeypatch.setattr(sclite, "find_sclite", lambda: None)
    assert command.main(texts) == 0
    assert "counted by the built-in scorer" in capsys.readouterr().out
    assert main(["score", *texts, "--scorer", "sclite"]) == 1
    assert "sclite is not installed (Debian: apt-get install sctk)" in capsys.readouterr().err
