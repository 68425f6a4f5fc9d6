"""Differences between systems: hand-made cases, and the properties that a test must have."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_quant4.bin import compare
from espnet_quant4.bin.main import main
from espnet_quant4.report.scoring import ScoringError, align
from espnet_quant4.report.significance import bootstrap, matched_pairs

WORDS = ["a", "b", "c"]


def aligned(references, hypotheses):
    return {
        str(i): align(r.split(), h.split())
        for i, (r, h) in enumerate(zip(references, hypotheses, strict=True))
    }


def test_segments_end_where_both_have_two_words_right():
    reference = ["a b c a b c a b c"]
    # Errors at the second word of one, at the third of the other: one segment; then both at the last.
    first = aligned(reference, ["a x c a b c a b x"])
    second = aligned(reference, ["a b x a b c a b x y"])
    found = matched_pairs([(first, second)])
    # 1 - 1 = 0 in the first segment, 2 - 1 = 1 in the second.
    assert found.segments == 2 and found.mean == 0.5
    spread = np.std([0, 1], ddof=1)
    assert found.p == pytest.approx(math.erfc(0.5 / (spread / math.sqrt(2)) / math.sqrt(2)))


def test_one_word_right_does_not_end_a_segment():
    reference = ["a b c a"]
    pair = aligned(reference, ["x b x a"]), aligned(reference, ["a b c a"])
    assert matched_pairs([pair]).segments == 1


def test_equal_systems_do_not_differ():
    reference = ["a b", "c", "a a a"]
    system = aligned(reference, ["a", "c", "a b a"])
    assert matched_pairs([(system, system)]).p == 1.0
    found = bootstrap([(system, system)], samples=100)
    assert (found.estimate, found.low, found.high, found.p) == (0, 0, 0, 1)
    right = aligned(reference, reference)
    assert matched_pairs([(right, right)]).segments == 0


def test_a_system_that_is_always_worse_is_found():
    reference = ["a b c a"] * 40
    first, second = aligned(reference, reference), aligned(reference, ["a b x a"] * 40)
    found = bootstrap([(first, second)], samples=500)
    assert found.estimate == found.low == found.high == 25 and found.p == 0
    assert matched_pairs([(first, second)]).p == 0


def test_interval_holds_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(0)
    held, trials = 0, 60
    for trial in range(trials):
        reference = ["a"] * 120
        # One system errs in a fifth of the utterances, the other in three tenths.
        pair = [
            aligned(reference, ["x" if bad else "a" for bad in random.random(120) < rate])
            for rate in (0.2, 0.3)
        ]
        found = bootstrap([tuple(pair)], samples=300, seed=trial)
        held += found.low <= 10 <= found.high
    assert 50 <= held <= 60


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_difference_is_that_of_the_rates_and_turns_its_sign(data):
    texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)
    reference = data.draw(st.lists(texts, min_size=1, max_size=5))
    size = len(reference)
    first, second = (
        aligned(reference, data.draw(st.lists(texts, min_size=size, max_size=size)))
        for _ in range(2)
    )
    there, back = bootstrap([(first, second)], 50), bootstrap([(second, first)], 50)
    words = sum(len(text.split()) for text in reference)
    errors = [sum(r != h for pairs in s.values() for r, h in pairs) for s in (first, second)]
    assert there.estimate == pytest.approx(100 * (errors[1] - errors[0]) / words)
    assert there.low <= there.estimate + 1e-9 or there.low <= there.high
    assert back.estimate == pytest.approx(-there.estimate)
    one, other = matched_pairs([(first, second)]), matched_pairs([(second, first)])
    assert one.segments == other.segments and one.mean == pytest.approx(-other.mean)
    assert one.p == pytest.approx(other.p) and 0 <= one.p <= 1
    assert one.mean * one.segments == pytest.approx(errors[1] - errors[0])


def test_what_does_not_belong_together_is_refused():
    one, other = aligned(["a"], ["a"]), aligned(["a", "b"], ["a", "b"])
    with pytest.raises(ScoringError, match="1 .1 in all. was not recognized by both systems"):
        bootstrap([(one, other)])
    with pytest.raises(ScoringError, match="other references"):
        matched_pairs([(one, aligned(["b"], ["a"]))])
    with pytest.raises(ScoringError, match="no word"):
        bootstrap([(aligned([""], ["a"]), aligned([""], ["a"]))])


def test_command(tmp_path, capsys):
    for name, text in (("ref", "u a b\nv c\n"), ("one", "u a b\nv c\n"), ("two", "u a x\nv c\n")):
        (tmp_path / name).write_text(text)
    files = {name: str(tmp_path / name) for name in ("ref", "one", "two")}
    options = ["--reference", files["ref"], "--samples", "50"]
    pair = ["--first", files["one"], "--second", files["two"]]
    assert compare.main([*options, *pair, "--output", str(tmp_path / "out.json")]) == 0
    assert "word error rate: 0.00 and 33.33 %" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "out.json").read_text())
    assert row["difference"]["estimate"] == pytest.approx(100 / 3) and row["pairs"] == 1
    (tmp_path / "two").write_text("u a x\n")
    assert main(["compare", *options, *pair]) == 1
    assert "two" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        compare.main([*options, "--first", files["one"], "--second", files["one"], files["two"]])
