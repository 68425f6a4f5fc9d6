"""Schemes: what is valid, what errors say, what is put where."""

from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from small_transducer import SCHEME, build_transducer

from espnet_quant4.asr.decoder.transducer_decoder import QuantTransducerDecoder
from espnet_quant4.asr.encoder.rnn_encoder import QuantRNNEncoder
from espnet_quant4.nn import QuantLinear, QuantLSTM
from espnet_quant4.quantizers import registry
from espnet_quant4.scheme import Scheme, SchemeError, apply_scheme, bundled_names

SITES = [
    ("encoder.enc.0.nbrnn.l0", "lstm"),
    ("encoder.enc.0.nbrnn.l1", "lstm"),
    ("encoder.enc.0.l_last", "linear"),
    ("decoder.embed", "embedding"),
]


def scheme_with(**changes):
    return {**SCHEME, **changes}


@pytest.mark.parametrize("name", bundled_names())
def test_bundled_schemes_are_valid_and_survive_yaml(name):
    scheme = Scheme.load(name)
    content = yaml.safe_load(yaml.safe_dump(scheme.to_dict()))
    assert Scheme.load(content).to_dict() == scheme.to_dict()
    apply_scheme(build_transducer(), name)


def test_bundled_names_and_the_folder_of_the_repository():
    assert bundled_names() == ["fp32", "int8", "naive", "tailored"]
    root = Path(__file__).parents[1]
    assert Scheme.load(root / "conf/scheme/naive.yaml").to_dict() == Scheme.load("naive").to_dict()


def test_nothing_is_float():
    for tensors in Scheme.load(None).resolve(SITES).values():
        assert set(tensors.values()) == {None}


def test_overrides_merge_in_order():
    scheme = Scheme.load(
        scheme_with(
            overrides=[
                {"pattern": "encoder.*", "weight_ih": {"bits": 8}},
                {"pattern": "encoder.enc.0.nbrnn.l0", "weight_ih": {"granularity": "row"}},
                {"pattern": "encoder.enc.0.nbrnn", "hidden": None},
                {"pattern": "*.l_last", "weight": {"quantizer": "mse", "bits": 3}},
            ]
        )
    )
    resolved = scheme.resolve(SITES)
    first, second = resolved["encoder.enc.0.nbrnn.l0"], resolved["encoder.enc.0.nbrnn.l1"]
    assert first["weight_ih"] == {"quantizer": "sawb+", "bits": 8, "granularity": "row"}
    assert second["weight_ih"] == {"quantizer": "sawb+", "bits": 8, "granularity": "gate"}
    assert first["hidden"] is None and second["hidden"] is None
    assert resolved["encoder.enc.0.l_last"]["weight"] == {"quantizer": "mse", "bits": 3}
    assert resolved["encoder.enc.0.l_last"]["input"] == SCHEME["linear"]["input"]


SPEC = {"quantizer": "max", "bits": 4}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"lstn": {}}, ["'lstn'", "lstm, linear, embedding, overrides", "Did you mean 'lstm'"]),
        ({"lstm": {"weight_hi": SPEC}}, ["lstm: 'weight_hi'", "weight_hh", "Did you mean"]),
        ({"lstm": {"input": {**SPEC, "quantizer": "maxx"}}}, ["lstm.input.quantizer", "'max'"]),
        ({"lstm": {"input": {**SPEC, "bits": 1}}}, ["lstm.input.bits: 1", "2, 3, 4, 5, 6, 7, 8"]),
        ({"lstm": {"input": {**SPEC, "bits": 9}}}, ["lstm.input.bits: 9"]),
        (
            {"lstm": {"input": {**SPEC, "bits": "4"}}},
            ["lstm.input.bits: '4' is text; write the number 4 without quotes"],
        ),
        ({"lstm": {"input": {**SPEC, "bits": True}}}, ["lstm.input.bits: True"]),
        ({"lstm": {"input": {"quantizer": "max"}}}, ["lstm.input.bits: None"]),
        ({"lstm": {"input": {"bits": 4}}}, ["lstm.input.quantizer", "pact+"]),
        ({"lstm": {"input": {**SPEC, "clip": 1.0}}}, ["lstm.input: 'clip'", "quantizer, bits"]),
        ({"lstm": {"input": 4}}, ["lstm.input: 4", "mapping"]),
        ({"lstm": [SPEC]}, ["lstm:", "weight_ih"]),
        ([], ["a mapping"]),
        ({"linear": {"weight": {**SPEC, "granularity": "gate"}}}, ["'gate'", "tensor, row"]),
        ({"lstm": {"input": {**SPEC, "granularity": "row"}}}, ["granularity", "'row'"]),
        ({"lstm": {"weight_ih": {**SPEC, "granularity": "rows"}}}, ["Did you mean 'row'"]),
        ({"lstm": {"hidden": {"quantizer": "fix", "bits": 4, "clip": -1}}}, ["hidden", "clip: -1"]),
        ({"overrides": [{"input": SPEC}]}, ["overrides[0].pattern", "None"]),
        ({"overrides": [{"pattern": "*", "inputs": SPEC}]}, ["overrides[0]: 'inputs'", "'input'"]),
        ({"overrides": [{"pattern": "*", "optional": 1}]}, ["overrides[0].optional: 1"]),
        ({"lstm": 0}, ["lstm: 0", "weight_ih"]),
        (
            {"lstm": {"hidden": {"quantizer": "fix", "bits": 4, "clip": "1"}}},
            ["hidden.clip: '1' is text; write the number 1"],
        ),
        (
            {"lstm": {"hidden": {"quantizer": "fix", "bits": 4, "clip": "1e1"}}},
            ["number 10 without"],
        ),
        ({"lstm": None}, ["lstm: nothing stands below it", "weight_ih: {quantizer"]),
        ({"linear": {}}, ["linear: nothing stands below it"]),
        ({}, ["it is empty", "bundled scheme fp32"]),
        (None, ["it is empty", "give null"]),
        ({"lstm": {"input": {"bounded": SPEC}}}, ["lstm.input", "give both bounded, unbounded"]),
        ({"lstm": {"input": {"bounded": SPEC, "unbound": SPEC}}}, ["'unbound'", "'unbounded'"]),
        ({"lstm": {"hidden": {"bounded": SPEC, "unbounded": SPEC}}}, ["alternatives of input"]),
        ({"linear": {"input": {"bounded": {"bits": 4}, "unbounded": None}}}, ["bounded.quantizer"]),
        (
            {"lstm": {"input": {"quantizer": "fix", "bits": 4, "allow_clipping": 1}}},
            ["allow_clipping: 1", "true, false"],
        ),
        ({"overrides": 5}, ["overrides: 5", "a list"]),
        ({"overrides": {"pattern": "*", "input": SPEC}}, ["overrides: {", "a list"]),
        ({"overrides": [{"pattern": "*"}]}, ["overrides[0]", "changes nothing", "weight_ih"]),
        ({"overrides": [{"pattern": "*", "input": {"bits": 0}}]}, ["overrides[0].input.bits: 0"]),
    ],
)
def test_wrong_content_names_key_file_and_choices(tmp_path, content, expected):
    path = tmp_path / "my_scheme.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(SchemeError) as caught:
        Scheme.load(path)
    assert str(path) in str(caught.value)
    for piece in expected:
        assert piece in str(caught.value)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ({"pattern": "encodr.*", "input": SPEC}, ["overrides[0].pattern: 'encodr.*'", "l_last"]),
        ({"pattern": "decoder.embed", "hidden": SPEC}, ["overrides[0].hidden", "weight"]),
        ({"pattern": "*.l_last", "weight": {**SPEC, "granularity": "gate"}}, ["'gate'", "l_last"]),
    ],
)
def test_overrides_that_do_not_fit_the_model(override, expected):
    with pytest.raises(SchemeError) as caught:
        Scheme.load({"overrides": [override]}).resolve(SITES)
    for piece in expected:
        assert piece in str(caught.value)


def test_changing_keys_of_a_float_tensor_is_an_error():
    scheme = Scheme.load({"overrides": [{"pattern": "*nbrnn", "input": {"bits": 8}}]})
    with pytest.raises(SchemeError, match="nothing to change"):
        scheme.resolve(SITES)


def test_a_merge_that_the_quantizer_does_not_know():
    scheme = scheme_with(overrides=[{"pattern": "*nbrnn", "input": {"clip": 1.0}}])
    with pytest.raises(SchemeError, match=r"overrides\[0\].input: 'clip'"):
        Scheme.load(scheme).resolve(SITES)


def test_optional_patterns_may_match_nothing():
    override = {"pattern": "nothing.*", "optional": True, "input": SPEC}
    Scheme.load({"overrides": [override]}).resolve(SITES)


FIXED = {"quantizer": "fix", "bits": 4}
LEARNED = {"quantizer": "pact+", "bits": 4, "init": "mse"}


def test_the_place_of_an_input_selects_the_alternative():
    sites = [("a", "linear"), ("b", "linear"), ("rnn.l0", "lstm")]
    scheme = {
        "linear": {"input": {"bounded": FIXED, "unbounded": LEARNED}},
        "lstm": {"hidden": FIXED, "input": {"bounded": None, "unbounded": FIXED}},
        "overrides": [
            {"pattern": "*", "input": {"unbounded": {"bits": 8}}},
            {"pattern": "a", "input": {"bits": 6}},
        ],
    }
    resolved = Scheme.load(scheme).resolve(sites, {"a": 2.5})
    assert resolved["a"]["input"] == {**FIXED, "bits": 6, "clip": 2.5}
    assert resolved["b"]["input"] == {**LEARNED, "bits": 8}
    assert resolved["rnn.l0"]["input"] == {**FIXED, "bits": 8}
    assert resolved["rnn.l0"]["hidden"] == {**FIXED, "clip": 1.0}
    content = yaml.safe_load(yaml.safe_dump(Scheme.load(scheme).to_dict()))
    assert Scheme.load(content).resolve(sites, {"a": 2.5}) == resolved


def test_a_clip_that_the_scheme_names_stands_against_the_bound():
    scheme = {"linear": {"input": {**FIXED, "clip": 0.5}}}
    resolved = Scheme.load(scheme).resolve([("a", "linear")], {"a": 1.0})
    assert resolved["a"]["input"]["clip"] == 0.5


def test_an_encoders_own_scheme_finds_its_layers_by_their_names_in_the_model():
    encoder = QuantRNNEncoder(8, num_layers=2, hidden_size=4, output_size=4, scheme="tailored")
    first = encoder.enc[0].birnn0.quantizers["l0"]["input"]
    assert (first.bits, first.init) == (8, "max")
    plain = QuantRNNEncoder(
        8, use_projection=False, num_layers=2, hidden_size=6, output_size=6, scheme="tailored"
    )
    assert plain.enc[0].nbrnn.quantizers["l0"]["input"].bits == 8
    decoder = QuantTransducerDecoder(
        9, 4, scheme={"overrides": [{"pattern": "decoder.embed", "weight": SPEC}]}
    )
    assert decoder.embed.quantizers["weight"].bits == 4


def test_optional_overrides_without_effect_are_told(caplog):
    with caplog.at_level("INFO"):
        build_transducer("tailored")
    assert "overrides that match no layer of this model: encoder.enc.*.*rnn0" in caplog.text
    assert "WARNING" not in caplog.text
    model = torch.nn.ModuleDict({"out": QuantLinear(3, 2)})
    override = {"pattern": "encoder.enc.*", "optional": True, "input": SPEC}
    apply_scheme(model, {"linear": {"weight": SPEC}, "overrides": [override]})
    assert "none of its overrides matches a layer of this model: encoder.enc.*" in caplog.text
    assert "Its layers are named out" in caplog.text


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.yaml").write_text("linear: {weight: {quantizer: max, bits: 4}}\n")
    assert Scheme.load("~/mine.yaml").to_dict()["linear"]["weight"] == SPEC


@pytest.mark.parametrize("text", ["", "# only comments\n", "---\n", "{}\n"])
def test_an_empty_file_is_no_scheme(tmp_path, text):
    path = tmp_path / "empty.yaml"
    path.write_text(text)
    with pytest.raises(SchemeError, match=r"empty.yaml: it is empty"):
        Scheme.load(path)


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(
        SchemeError, match=r"tailord.*scheme: fp32, int8, naive, tailored. Did you mean 'tailored'"
    ):
        Scheme.load("tailord")
    path = tmp_path / "broken.yaml"
    path.write_text("lstm: {input: [")
    with pytest.raises(SchemeError, match=r"(?s)broken\.yaml.*line 1"):
        Scheme.load(path)
    path.write_text("lstm: {input: {quantizer: max, bits: 4}}\n# later\nlstm: {input: null}\n")
    with pytest.raises(SchemeError, match=r"(?s)broken\.yaml.*'lstm' stands twice.*line 3"):
        Scheme.load(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SchemeError, match=r"broken\.yaml:1: byte 0xff is not UTF-8"):
        Scheme.load(path)
    with pytest.raises(SchemeError, match="is a folder"):
        Scheme.load(tmp_path)


def test_yaml_merges_are_not_keys_given_twice(tmp_path):
    path = tmp_path / "merged.yaml"
    path.write_text(
        "lstm:\n  weight_ih: &w {quantizer: max, bits: 4, granularity: gate}\n"
        "  weight_hh: {<<: *w, bits: 8}\n"
    )
    assert Scheme.load(path).to_dict()["lstm"]["weight_hh"]["bits"] == 8


@pytest.mark.parametrize("scheme", [5, 0, False, ["tailored"]])
def test_what_is_no_scheme(scheme):
    with pytest.raises(SchemeError, match="valid are a YAML file, a mapping, null"):
        Scheme.load(scheme)


def test_apply_builds_what_the_scheme_says():
    lstm = QuantLSTM(4, 3, 2, bidirectional=True)
    model = torch.nn.ModuleDict({"rnn": lstm, "out": QuantLinear(6, 2)})
    resolved = apply_scheme(model, SCHEME)
    assert set(resolved) == {"rnn.l0", "rnn.l1", "out"}
    assert lstm.quantizers["l1_reverse"]["weight_ih"].groups == 4
    assert lstm.quantizers["l0"]["hidden"].constant == 1.0
    assert model["out"].quantizers["input"].role == "activation"


def test_two_schemes_for_one_layer_are_refused():
    model = QuantLinear(3, 2)
    apply_scheme(model, "int8")
    with pytest.raises(SchemeError, match="quantized already"):
        apply_scheme(model, "naive")


@given(st.sampled_from(registry.names()), st.integers(2, 8))
def test_every_quantizer_fits_every_tensor(name, bits):
    specification = {"quantizer": name, "bits": bits}
    scheme = {
        "lstm": dict.fromkeys(("weight_ih", "weight_hh", "input", "hidden"), specification),
        "linear": dict.fromkeys(("weight", "input"), specification),
        "embedding": {"weight": specification},
    }
    assert Scheme.load(scheme).resolve(SITES)["decoder.embed"]["weight"] == specification


def test_tailored_gives_outputs_8_bits_and_prediction_networks_4():
    sites = [("encoder", "embedding"), ("rnn.l0", "lstm"), ("decoder", "linear")]
    lm = Scheme.load("tailored").resolve(sites)
    assert lm["decoder"]["weight"]["bits"] == lm["decoder"]["input"]["bits"] == 8
    assert lm["decoder"]["weight"]["granularity"] == "row"
    sites = [("decoder.embed", "embedding"), ("decoder.decoder.0.l0", "lstm")]
    sites += [("joint_network.lin_out", "linear"), ("embed", "embedding"), ("decoder.0.l0", "lstm")]
    transducer = Scheme.load("tailored").resolve(sites)
    assert transducer["joint_network.lin_out"]["weight"]["bits"] == 8
    for name in ("decoder.embed", "embed"):
        assert transducer[name]["weight"]["bits"] == 4
    for name in ("decoder.decoder.0.l0", "decoder.0.l0"):
        assert {transducer[name][t]["bits"] for t in ("weight_ih", "weight_hh")} == {4}
