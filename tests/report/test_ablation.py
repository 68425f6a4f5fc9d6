"""An ablation's table and figures, of texts in the folders of made-up experiments."""

from pathlib import Path

import pytest

from espnet_quant4.bin import ablation as command
from espnet_quant4.bin.main import main
from espnet_quant4.report import ablation
from espnet_quant4.report.ablation import Experiments, collect, for_table
from espnet_quant4.report.ablation_figures import smallest_at_its_error
from espnet_quant4.report.scoring import ScoringError
from espnet_quant4.scheme_variants import Variant

REFERENCE = {"u1": "a b c d", "u2": "e f g h", "u3": "i k"}
VARIANTS = [Variant("tailored", "reference", "tailored"), Variant("w2a4", "bits", "W2A4")]


def write_text(path: Path, texts: dict[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{key} {text}\n" for key, text in texts.items()))
    return path


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Experiments, Path]:
    """Two seeds: FP32 has one error, tailored none, two bits lose a word in every utterance."""
    for seed in (1, 2):
        for name, texts in {
            "fp32/decode": {**REFERENCE, "u1": "a b c x"},
            "tailored/decode_int4": REFERENCE,
            "w2a4/decode_int4": {"u1": "a b c", "u2": "e f g", "u3": "i"},
        }.items():
            write_text(tmp_path / f"seed{seed}/asr_{name}/dev/text", texts)
    log = tmp_path / "seed1/asr_w2a4/train.log"
    log.write_text(
        "x 1epoch results: [train] loss=3.0, time=1, [valid] loss=2.5, time=1\n"
        "x 2epoch results: [train] loss=2.0, time=1, [valid] loss=2.25, time=1\n"
    )
    (tmp_path / "seed2/asr_w2a4/train.log").write_text(log.read_text().replace("2.25", "2.75"))

    def describe(system: Path, model: str, task: object) -> dict:
        bits = {"asr_fp32": 32, "asr_tailored": 4, "asr_w2a4": 2}[system.name]
        return {"bits": f"W{bits}A4", "weight_bits": bits, "size_bytes": bits * 1000, "seed": 1}

    monkeypatch.setattr(ablation, "describe_model", describe)
    reference = write_text(tmp_path / "text", REFERENCE)
    return Experiments(
        f"{tmp_path}/seed{{seed}}/asr_{{variant}}", [1, 2], Path("decode/dev")
    ), reference


def test_rows_compare_with_float(study) -> None:
    fp32, tailored, two_bits = collect(VARIANTS, *study)
    assert [row["name"] for row in (fp32, tailored, two_bits)] == ["fp32", "tailored", "w2a4"]
    assert fp32["difference"] is None and fp32["each"] == [10.0, 10.0] and fp32["words"] == 10
    assert tailored["wer"] == 0 and tailored["difference"]["estimate"] == pytest.approx(-10)
    assert two_bits["wer"] == 30 and two_bits["difference"]["estimate"] == pytest.approx(20)
    assert two_bits["difference"]["low"] <= 20 <= two_bits["difference"]["high"]
    # The least of a run's epochs, then the mean over seeds.
    assert two_bits["valid_loss"] == 2.375 and tailored["valid_loss"] is None
    assert two_bits["size_bytes"] == 2000 and two_bits["spread"] == 0
    shown = for_table([fp32, two_bits])
    assert shown[0]["difference"] is None and shown[1]["difference"] == "+20.00"
    assert " to " in shown[1]["interval"] and shown[1]["each"] == "30.00 30.00"


def test_a_missing_text_is_named(study) -> None:
    experiments, reference = study
    experiments.text("w2a4", 2).unlink()
    with pytest.raises(OSError, match="seed2/asr_w2a4/decode_int4/dev/text"):
        collect(VARIANTS, experiments, reference)
    write_text(experiments.text("w2a4", 2), {"u1": "a"})
    with pytest.raises(ScoringError):
        collect(VARIANTS, experiments, reference)


def test_command_writes_table_and_figures(study, tmp_path: Path, capsys) -> None:
    experiments, reference = study
    file = tmp_path / "variants.yaml"
    file.write_text(
        "base: tailored\nvariants:\n"
        "  - {name: tailored, group: reference, title: tailored}\n"
        "  - {name: w2a4, group: bits, title: W2A4, weight_bits: 2}\n"
        "  - {name: w3a4, group: bits, title: W3A4, weight_bits: 3}\n"
    )
    arguments = [
        *("--file", file, "--family", "asr", "--only", "tailored", "w2a4", "--seeds", 1, 2),
        *("--experiments", experiments.pattern, "--part", experiments.part),
        *("--reference", reference, "--output", tmp_path / "out.json"),
        *("--figure", tmp_path / "bars.svg", "--size_figure", tmp_path / "size.svg"),
    ]
    pytest.importorskip("matplotlib")
    assert command.main(list(map(str, arguments))) == 0
    shown = capsys.readouterr().out
    assert "| bits" in shown and "+20.00" in shown and "W3A4" not in shown
    first = (tmp_path / "bars.svg").read_bytes()
    assert b"bits: W2A4" in first and b"W2A4" in (tmp_path / "size.svg").read_bytes()
    assert command.main(list(map(str, arguments))) == 0
    assert (tmp_path / "bars.svg").read_bytes() == first
    del arguments[4:7]
    arguments.insert(4, "--only")
    arguments[5:5] = ["w3a4"]
    assert main(["ablation", *map(str, arguments)]) == 1
    assert "w3a4" in capsys.readouterr().err


def test_the_line_of_sizes_leaves_out_what_is_larger_and_no_better() -> None:
    rows = [
        {"size_bytes": size, "wer": wer}
        for size, wer in ((8, 5.0), (1, 9.0), (4, 6.0), (2, 9.5), (4, 5.5), (6, 5.5))
    ]
    found = [(row["size_bytes"], row["wer"]) for row in smallest_at_its_error(rows)]
    assert found == [(1, 9.0), (4, 5.5), (8, 5.0)]
