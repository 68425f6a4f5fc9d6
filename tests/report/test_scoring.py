"""Alignment counts: by hand, by exhaustive search, and against NIST's sclite where it is."""

import functools
import random

import pytest

from espnet_quant4.report.scoring import (
    Counts,
    ScoringError,
    align,
    count,
    format_score,
    read_trn,
    score,
)


def random_pairs(number, seed=0, longest=12):
    draw = random.Random(seed)
    return [
        (
            [draw.choice("abc") for _ in range(draw.randint(1, longest))],
            [draw.choice("abc") for _ in range(draw.randint(0, longest))],
        )
        for _ in range(number)
    ]


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        # words, correct, substitutions, deletions, insertions, wrong sentences
        ("the cat sat", "the cat sat", (3, 3, 0, 0, 0, 0)),
        ("the cat sat", "the bat sat", (3, 2, 1, 0, 0, 1)),
        ("the cat sat", "the sat", (3, 2, 0, 1, 0, 1)),
        ("the cat sat", "the cat sat down", (3, 3, 0, 0, 1, 1)),
        ("the cat sat", "", (3, 0, 0, 3, 0, 1)),
        ("", "the cat", (0, 0, 0, 0, 2, 1)),
        ("", "", (0, 0, 0, 0, 0, 0)),
        # Two gaps and a match (cost 6) win over two substitutions (cost 8).
        ("a b", "b c", (2, 1, 0, 1, 1, 1)),
        # Three substitutions and four gaps with a match cost 12 each: the former is preferred here.
        ("a b c", "x y a", (3, 0, 3, 0, 0, 1)),
    ],
)
def test_counts_by_hand(reference, hypothesis, expected):
    counts = count(align(reference.split(), hypothesis.split()))
    assert counts == Counts(1, *expected)


def cheapest(reference, hypothesis):
    """The cost of the best alignment, straight from its definition."""

    @functools.cache
    def cost(i, j):
        if not i or not j:
            return 3 * (i + j)
        last = 0 if reference[i - 1] == hypothesis[j - 1] else 4
        return min(cost(i - 1, j - 1) + last, cost(i - 1, j) + 3, cost(i, j - 1) + 3)

    return cost(len(reference), len(hypothesis))


def test_alignments_spell_both_sides_at_the_lowest_cost():
    for reference, hypothesis in random_pairs(200, seed=1):
        pairs = align(reference, hypothesis)
        assert [r for r, _ in pairs if r is not None] == reference
        assert [h for _, h in pairs if h is not None] == hypothesis
        c = count(pairs)
        assert 4 * c.substitutions + 3 * (c.deletions + c.insertions) == cheapest(
            tuple(reference), tuple(hypothesis)
        )


# What sclite 2.4.10 counted where alignments of equal cost differ in their counts: C, S, D, I.
RECORDED = [
    ("b b c c b", "c a c a b", (2, 3, 0, 0)),
    ("a a a b b a", "a b a c c", (2, 3, 1, 0)),
    ("b a c b a a c", "a c c c c b c", (3, 3, 1, 1)),
    ("c c c a c b c", "c a c c c c a a", (4, 3, 0, 1)),
    ("b b c c c b", "a b a b b a", (2, 3, 1, 1)),
]


@pytest.mark.parametrize(("reference", "hypothesis", "expected"), RECORDED)
def test_ties_are_broken_as_sclite_breaks_them(reference, hypothesis, expected):
    c = count(align(reference.split(), hypothesis.split()))
    assert (c.correct, c.substitutions, c.deletions, c.insertions) == expected


def test_rates_and_sums():
    counts = count(align(["a", "b", "c", "d"], ["a", "x", "c"]))
    counts += count(align(["a"], ["a"]))
    assert (counts.sentences, counts.words, counts.errors, counts.wrong_sentences) == (2, 5, 2, 1)
    assert counts.error_rate == pytest.approx(40.0)
    assert counts.sentence_error_rate == pytest.approx(50.0)
    assert Counts().error_rate != Counts().error_rate  # NaN: nothing was scored


def test_the_report_holds_totals_speakers_and_alignments():
    references = {"bob-1": ["hello", "world"], "amy-1": ["yes"]}
    result = score(references, {"bob-1": ["hello"], "amy-1": ["yes"]})
    assert list(result.speakers) == ["amy", "bob"]
    text = format_score(result)
    assert "| Sum/Avg |     2     3 |  66.7    0.0   33.3    0.0   33.3   50.0 |" in text
    assert "REF:  hello WORLD\nHYP:  hello *****" in text


@pytest.mark.parametrize(
    ("hypotheses", "message"),
    [
        ({"a": ["x"]}, r"test: no hypothesis for 1 utterance\(s\), such as b"),
        ({"a": ["x"], "b": [], "c": []}, r"test: no reference for 1 utterance\(s\), such as c"),
    ],
)
def test_missing_utterances_are_an_error(hypotheses, message):
    with pytest.raises(ScoringError, match=message):
        score({"a": ["x"], "b": ["y"]}, hypotheses, where="test")


def test_malformed_transcripts_are_an_error(tmp_path):
    path = tmp_path / "ref.trn"
    path.write_text("a b (s-1)\na b\n")
    with pytest.raises(ScoringError, match=r"ref\.trn:2: 'a b' does not end in \(utterance\)"):
        read_trn(path)
    path.write_text("a (s-1)\nb (s-1)\n")
    with pytest.raises(ScoringError, match=r"ref\.trn:2: utterance s-1 stands here and in line 1;"):
        read_trn(path)


def test_an_empty_hypothesis_is_read_as_no_tokens(tmp_path):
    path = tmp_path / "hyp.trn"
    path.write_text("\t(s-1)\n")
    assert read_trn(path) == {"s-1": []}
