"""Tables of several seeds."""

import json
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espnet_quant4.bin import study
from espnet_quant4.bin.main import main
from espnet_quant4.report.scoring import ScoringError
from espnet_quant4.report.study import merge, summarize


def row(system, wer, seed, part="test", words=773, inference="int4"):
    return {
        "system": system, "part": part, "bits": "W4A4", "inference": inference, "seed": seed,
        "wer": wer, "cer": wer / 2, "words": words,
    }  # fmt: skip


def write(folder, name, rows):
    path = folder / name
    path.write_text(json.dumps(rows))
    return path


@given(st.lists(st.floats(0, 100), min_size=2, max_size=6))
def test_mean_and_spread_of_the_seeds(rates):
    rows = [row("tailored", rate, seed) for seed, rate in enumerate(rates)]
    (found,) = summarize(rows[::-1])
    assert found["runs"] == len(rates)
    assert found["mean"] == pytest.approx(statistics.fmean(rates), abs=0.006)
    assert found["spread"] == pytest.approx(statistics.stdev(rates), abs=0.006)
    assert found["each"].split() == [f"{rate:.2f}" for rate in rates]


def test_one_run_has_no_spread_and_systems_keep_their_order():
    rows = [
        row("naive", 9.0, 1),
        row("fp32", 7.0, 1),
        row("naive", 8.0, 2),
        row("naive", 1, 1, "dev"),
    ]
    found = summarize(rows)
    assert [(r["system"], r["part"], r["runs"]) for r in found] == [
        ("naive", "test", 2),
        ("fp32", "test", 1),
        ("naive", "dev", 1),
    ]
    assert found[1]["spread"] is None
    assert summarize(rows, "cer")[0]["mean"] == 4.25


def test_a_gmm_gets_the_seed_of_its_run(tmp_path):
    paths = [
        write(tmp_path, f"{seed}.json", [row("gmm", 7 + seed, None), row("fp32", 6, seed)])
        for seed in (1, 2)
    ]
    rows = merge(paths)
    assert [r["seed"] for r in rows if r["system"] == "gmm"] == [1, 2]
    assert summarize(rows)[0]["each"] == "8.00 9.00"


def test_what_does_not_belong_together_is_refused(tmp_path):
    one = write(tmp_path, "one.json", [row("fp32", 6, 1)])
    again = write(tmp_path, "again.json", [row("fp32", 7, 1)])
    other = write(tmp_path, "other.json", [row("fp32", 7, 2, words=700)])
    mixed = write(tmp_path, "mixed.json", [row("fp32", 7, 2), row("naive", 7, 3)])
    with pytest.raises(ScoringError, match="again.json: seed 1 is that of .*one.json too"):
        merge([one, again])
    with pytest.raises(ScoringError, match=r"part test: \[700, 773\] words"):
        merge([one, other])
    with pytest.raises(ScoringError, match=r"seeds \[2, 3\]"):
        merge([mixed])


def test_command(tmp_path, capsys):
    paths = [write(tmp_path, f"{seed}.json", [row("fp32", 6 + seed, seed)]) for seed in (1, 2)]
    output = tmp_path / "all.json"
    assert study.main(["--results", *map(str, paths), "--output", str(output)]) == 0
    assert "7.00 8.00" in capsys.readouterr().out
    assert len(json.loads(output.read_text())) == 2
    assert main(["study", "--results", str(tmp_path / "no.json"), "--output", str(output)]) == 1
    assert "no.json" in capsys.readouterr().err
