"""From decoded folders to the table and its JSON."""

import json
from pathlib import Path

import pytest
import torch
from small_transducer import SCHEME, build_transducer

from espnet_quant4.bin import main
from espnet_quant4.nn import QuantEmbedding, QuantLinear, QuantLSTM
from espnet_quant4.report import results
from espnet_quant4.report.model_size import measure
from espnet_quant4.report.scoring import ScoringError, read_trn

REFERENCE = "amy-1 press one\namy-2 goodbye\n"
LOG = """\
2026-11-23 23:00:00,000 (asr_inference:522) INFO: speech length: 8000
2026-11-23 23:00:00,500 (asr_inference:646) INFO: best hypo: press<space>two
2026-11-23 23:00:09,000 (asr_inference:522) INFO: speech length: 8000
2026-11-23 23:00:09,100 (asr_inference:646) INFO: best hypo:
"""


@pytest.fixture
def experiment(tmp_path):
    """A decoded part as a recipe leaves it; returns (experiment folder, data folder)."""
    system = tmp_path / "exp" / "asr_naive"
    (system / "decode_asr" / "test" / "logdir").mkdir(parents=True)
    (system / "decode_asr" / "test" / "text").write_text("amy-1 press two\namy-2 \n")
    (system / "decode_asr" / "test" / "logdir" / "asr_inference.1.log").write_text(LOG)
    (tmp_path / "dump" / "test").mkdir(parents=True)
    (tmp_path / "dump" / "test" / "text").write_text(REFERENCE)
    return system, tmp_path / "dump"


def collect(experiment, monkeypatch):
    description = {"bits": "W4A4", "weight_bits": 4.5, "size_bytes": 2_000_000}
    monkeypatch.setattr(results, "describe_model", lambda system, model: description)
    system, dump = experiment
    return results.collect([system], ["test"], dump, "decode_asr", "valid.loss.ave.pth", 8000)


def test_rates_counts_and_speed_of_a_part(experiment, monkeypatch):
    (row,) = collect(experiment, monkeypatch)
    # Words: one substituted, one deleted of three. Characters: "one" against "two" is three
    # substitutions or, no dearer, gaps; "goodbye" is seven deletions; 16 in all.
    assert (row["system"], row["part"], row["bits"]) == ("naive", "test", "W4A4")
    assert (row["words"], row["substitutions"], row["deletions"], row["insertions"]) == (3, 1, 1, 0)
    assert row["wer"] == pytest.approx(66.67)
    assert row["cer"] == pytest.approx(100 * 10 / 16)
    # 0.6 s for 2 s of speech; the pause between the utterances is no decoding.
    assert row["rtf"] == pytest.approx(0.3)
    assert row["audio_seconds"] == 2.0


def test_a_system_decoded_on_codes_has_rows_and_the_size_of_its_file(experiment, monkeypatch):
    system, _ = experiment
    decoded = system / "decode_asr_int4" / "test"
    decoded.mkdir(parents=True)
    (decoded / "text").write_text(REFERENCE)
    (system / "model.int4").write_bytes(bytes(1234))
    emulated, int4 = collect(experiment, monkeypatch)
    assert (emulated["inference"], emulated["size_bytes"]) == ("emulated", 2_000_000)
    assert (int4["inference"], int4["size_bytes"], int4["wer"]) == ("int4", 1234, 0.0)
    assert "| int4" in results.to_markdown([emulated, int4])


def test_alignments_are_left_in_the_layout_of_espnet(experiment, monkeypatch):
    collect(experiment, monkeypatch)
    folder = experiment[0] / "decode_asr" / "test"
    assert read_trn(folder / "score_wer" / "hyp.trn") == {"amy-1": ["press", "two"], "amy-2": []}
    characters = read_trn(folder / "score_cer" / "ref.trn")["amy-1"]
    assert characters == ["p", "r", "e", "s", "s", "<space>", "o", "n", "e"]
    assert "| Sum/Avg |     2     3 |" in (folder / "score_wer" / "result.txt").read_text()


def test_table_and_json_hold_the_same_numbers(experiment, monkeypatch, tmp_path):
    rows = collect(experiment, monkeypatch)
    results.write_json(rows, tmp_path / "deep" / "results.json")
    assert json.loads((tmp_path / "deep" / "results.json").read_text()) == rows
    header, rule, line = results.to_markdown(rows).splitlines()
    cells = dict(
        zip(*([c.strip() for c in x.strip("|").split("|")] for x in (header, line)), strict=True)
    )
    assert cells["System"] == "naive" and cells["WER %"] == "66.67" and cells["Size MB"] == "2.00"
    assert set(rule) == {"|", "-"}


def test_missing_logs_give_no_speed_instead_of_a_wrong_one(experiment, monkeypatch, tmp_path):
    next((experiment[0] / "decode_asr" / "test" / "logdir").iterdir()).unlink()
    rows = collect(experiment, monkeypatch)
    assert rows[0]["rtf"] is None
    results.write_json(rows, tmp_path / "results.json")
    json.loads((tmp_path / "results.json").read_text())


def test_a_lost_utterance_is_an_error(experiment, monkeypatch):
    (experiment[0] / "decode_asr" / "test" / "text").write_text("amy-1 press one\n")
    with pytest.raises(ScoringError, match="no hypothesis for 1 utterance"):
        collect(experiment, monkeypatch)


def test_score_command_prints_words_and_characters(experiment, capsys):
    system, dump = experiment
    arguments = ["score", dump / "test" / "text", system / "decode_asr" / "test" / "text"]
    assert main.main(list(map(str, arguments))) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("words, counted by ") and "characters, counted by " in shown
    assert "| Sum/Avg |     2     3 |" in shown
    assert main.main([*map(str, arguments), "--alignments"]) == 0
    assert "REF:  press ONE" in capsys.readouterr().out
    assert main.main(["score", str(Path("missing")), str(arguments[1])]) == 1
    assert "missing" in capsys.readouterr().err


def test_size_counts_weights_at_their_bits():
    linear = QuantLinear(10, 3)  # 30 weights, 3 biases
    assert measure(linear).packed == measure(linear).float32 == 33 * 4
    linear.set_quantizers("", {"weight": {"quantizer": "max", "bits": 4}})
    size = measure(linear)
    # 30 codes of 4 bits, a clip, 3 float biases.
    assert size.packed == 15 + 4 + 12
    assert size.float32 == 33 * 4
    assert size.weight_bits == pytest.approx((30 * 4 + 3 * 32) / 33)


def test_size_of_lstm_and_embedding():
    lstm = QuantLSTM(5, 4, num_layers=2, bidirectional=True)
    gate = {"quantizer": "sawb+", "bits": 4, "granularity": "gate"}
    specification = {"weight_ih": gate, "weight_hh": {**gate, "bits": 8}}
    lstm.set_quantizers("l0", specification)
    # Layer 0, both directions: weight_ih 16 x 5 at 4 bits, weight_hh 16 x 4 at 8 bits, 8 clips.
    first = 2 * (16 * 5 // 2 + 16 * 4 + 8 * 4)
    rest = 2 * 2 * 2 * 16 * 4 + 2 * 4 * (16 * 8 + 16 * 4)
    assert measure(lstm).packed == first + rest
    embedding = QuantEmbedding(7, 3)
    embedding.set_quantizers("", {"weight": {"quantizer": "max", "bits": 2}})
    assert measure(embedding).packed == 6 + 4  # 42 bits, a clip


def test_learned_clips_are_not_counted_twice():
    model = build_transducer(SCHEME)
    clips = sum(p.numel() for n, p in model.named_parameters() if "clip_value" in n)
    assert clips > 0
    weights = sum(p.numel() for n, p in model.named_parameters() if "clip_value" not in n)
    assert measure(model).float32 == 4 * weights
    assert measure(model).packed < measure(model).float32 / 2
    assert measure(torch.nn.Linear(3, 3)).packed == 48
