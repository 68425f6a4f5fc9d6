"""Schemes that differ in one thing, and the file that lists them."""

from pathlib import Path

import pytest
import yaml

from espnet_quant4.bin import variants as command
from espnet_quant4.bin.main import main
from espnet_quant4.scheme import Scheme, SchemeError
from espnet_quant4.scheme_variants import Variant, changed, read_variants, scheme_of, with_bits

AN4 = Path(__file__).parents[1] / "egs/an4/ablation.yaml"
TAILORED = Scheme.load("tailored").to_dict()


def test_alternatives_are_changed_one_by_one_or_both() -> None:
    below = TAILORED["lstm"]["input"]
    result = changed(TAILORED, {"lstm": {"input": {"unbounded": {"init": "max"}}}})
    assert result["lstm"]["input"]["bounded"] == below["bounded"]
    assert result["lstm"]["input"]["unbounded"] == {**below["unbounded"], "init": "max"}
    result = changed(TAILORED, {"lstm": {"input": {"bits": 6}}})
    assert [entry["bits"] for entry in result["lstm"]["input"].values()] == [6, 6]
    result = with_bits(TAILORED, activations=8)
    assert [entry["bits"] for entry in result["linear"]["input"].values()] == [8, 8]


def test_a_specification_with_a_quantizer_replaces_and_one_without_changes() -> None:
    result = changed(
        TAILORED,
        {
            "lstm": {"hidden": {"quantizer": "max", "bits": 4}, "weight_hh": {"bits": 3}},
            "linear": {"input": None},
        },
    )
    assert result["lstm"]["hidden"] == {"quantizer": "max", "bits": 4}
    assert result["lstm"]["weight_hh"] == {**TAILORED["lstm"]["weight_hh"], "bits": 3}
    assert result["linear"]["input"] is None
    assert result["lstm"]["weight_ih"] == TAILORED["lstm"]["weight_ih"]
    assert Scheme.load("tailored").to_dict() == TAILORED


def test_overrides_join_those_of_their_pattern() -> None:
    scheme = {"overrides": [{"pattern": "output", "optional": True, "weight": {"bits": 8}}]}
    result = changed(
        scheme,
        {
            "overrides": [
                {"pattern": "output", "weight": {"bits": 4}},
                {"pattern": "x", "input": None},
            ]
        },
    )
    assert result["overrides"] == [
        {"pattern": "output", "optional": True, "weight": {"bits": 4}},
        {"pattern": "x", "input": None},
    ]


def test_bits_change_where_there_are_four() -> None:
    result = with_bits(TAILORED, weights=2, activations=8)
    assert result["lstm"]["weight_hh"]["bits"] == 2 and result["lstm"]["hidden"]["bits"] == 8
    assert result["embedding"]["weight"]["bits"] == 2
    output = next(entry for entry in result["overrides"] if entry["pattern"] == "output")
    assert output["weight"]["bits"] == 8
    assert with_bits(TAILORED) == TAILORED


def test_variants_of_an4_differ_from_the_base_and_from_each_other() -> None:
    base, variants = read_variants(AN4)
    for family in ("asr", "hybrid"):
        there = [variant for variant in variants if family in variant.families]
        seen = []
        for variant in there:
            # The reference is a scheme by its name.
            if variant.group == "reference":
                continue
            start = AN4.parent / variant.schemes[family] if variant.schemes else base
            what = (scheme_of(start, variant), variant.arguments.get(family, ""))
            assert what not in seen, variant.name
            assert what != (TAILORED, ""), variant.name
            seen.append(what)


WHOLE = {"name": "a", "group": "b", "title": "c"}


@pytest.mark.parametrize(
    "entry, message",
    [
        ("x", "valid is a mapping"),
        ({"name": "a", "group": "b"}, r"missing \['title'\]"),
        ({"name": "a", "group": "b", "title": "c", "bits": 3}, r"unknown keys \['bits'\]"),
        ({"name": "A b", "group": "b", "title": "c"}, "small letters"),
        ({**WHOLE, "changes": ["lstm"]}, r"variants\[0\]: changes .*; valid is a mapping as in a"),
        ({**WHOLE, "changes": {"lstm": 4}}, "changes .*; valid is a mapping as in a scheme"),
        (
            {**WHOLE, "changes": {"overrides": [{"bits": 4}]}},
            "overrides a list, each with its pattern",
        ),
        ({**WHOLE, "weight_bits": "4"}, "weight_bits '4'; valid is a whole number"),
        ({**WHOLE, "activation_bits": -4}, "activation_bits -4; valid is a whole number"),
        (
            {**WHOLE, "schemes": "mixed.yaml"},
            "schemes 'mixed.yaml'; valid is a scheme file by family",
        ),
        ({**WHOLE, "arguments": {"asr": 1}}, "arguments .*; valid is options of run.sh by family"),
        ({**WHOLE, "families": "asr"}, "families 'asr'; valid is a list of asr and hybrid"),
        ({**WHOLE, "families": ["lm"]}, r"families \['lm'\]; valid is a list of asr and hybrid"),
    ],
)
def test_wrong_entries(entry, message: str, tmp_path: Path) -> None:
    path = tmp_path / "variants.yaml"
    path.write_text(yaml.safe_dump({"base": "tailored", "variants": [entry]}))
    with pytest.raises(SchemeError, match=message):
        read_variants(path)


def test_wrong_files(tmp_path: Path) -> None:
    path = tmp_path / "variants.yaml"
    with pytest.raises(FileNotFoundError):
        read_variants(path)
    for variants in ("", "3", "{a: {name: a}}", "[]"):
        path.write_text(f"base: tailored\nvariants: {variants}\n")
        with pytest.raises(SchemeError, match="variants.yaml: variants .*; valid is a list"):
            read_variants(path)
    path.write_text("base:\nvariants: [{name: a, group: b, title: c}]\n")
    with pytest.raises(SchemeError, match="base None; valid is the name or the file of a scheme"):
        read_variants(path)
    path.write_text("base: tailored")
    with pytest.raises(SchemeError, match="base and variants"):
        read_variants(path)
    entry = {"name": "a", "group": "b", "title": "c"}
    path.write_text(yaml.safe_dump({"base": "tailored", "variants": [entry, entry]}))
    with pytest.raises(SchemeError, match="'a' stands twice"):
        read_variants(path)


def test_a_change_that_gives_no_scheme_names_the_variant() -> None:
    with pytest.raises(SchemeError, match="variant v: .*hiden"):
        scheme_of("tailored", Variant("v", "g", "t", {"lstm": {"hiden": None}}))


def test_command_writes_schemes_and_prints_options(tmp_path: Path, capsys) -> None:
    arguments = ["--file", str(AN4), "--family", "hybrid", "--output", str(tmp_path)]
    assert command.main([*arguments, "--only", "tailored", "ptq", "w2a8"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "tailored",
        f"{tmp_path}/ptq.yaml --qat false",
        f"{tmp_path}/w2a8.yaml",
    ]
    assert Scheme.load(tmp_path / "w2a8.yaml").to_dict()["lstm"]["weight_ih"]["bits"] == 2
    written = (tmp_path / "w2a8.yaml").stat().st_mtime_ns
    assert command.main([*arguments, "--only", "w2a8"]) == 0
    assert (tmp_path / "w2a8.yaml").stat().st_mtime_ns == written
    assert command.main([*arguments, "--only", "mixed"]) == 0
    mixed = AN4.parent / "hybrid1/conf/mixed.yaml"
    assert Scheme.load(tmp_path / "mixed.yaml").to_dict() == Scheme.load(mixed).to_dict()
    # The joint network is the transducer's.
    assert main(["variants", *arguments, "--only", "joint_8"]) == 1
    assert "joint_8: valid: tailored" in capsys.readouterr().err
