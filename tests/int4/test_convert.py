"""Converted modules give what the emulated ones give, and keep their contracts."""

import copy
import io
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_transducer import SCHEME, build_transducer, random_batch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from espnet_quant4.int4 import convert, convert_structure, describe, parts_in_float, use_int4
from espnet_quant4.int4.embedding import Int4Embedding
from espnet_quant4.int4.linear import Int4Linear
from espnet_quant4.int4.lstm import Int4LSTM
from espnet_quant4.kernels import native
from espnet_quant4.nn import QuantEmbedding, QuantLinear, QuantLSTM
from espnet_quant4.quantizers.calibration import calibrating
from espnet_quant4.scheme import apply_scheme

pytestmark = pytest.mark.filterwarnings("ignore:Quantization-aware training starts without")


def quantized_lstm(inputs, hidden, layers=1, bits=4, granularity="gate", family="fix", **options):
    lstm = QuantLSTM(inputs, hidden, layers, **options)
    weight = {"quantizer": "max", "bits": bits, "granularity": granularity}
    state = {"quantizer": "fix", "bits": 4, "clip": 1.0}
    if family != "fix":
        state = {"quantizer": family, "bits": 4}
    apply_scheme(lstm, {"lstm": {"weight_ih": weight, "weight_hh": weight, "hidden": state,
                                 "input": {"quantizer": "pact+", "bits": 8}}})  # fmt: skip
    with calibrating(lstm), torch.no_grad():
        lstm(torch.randn(inputs).expand(8, 3, inputs) + torch.randn(8, 3, inputs)
             if not options.get("batch_first") else torch.randn(3, 8, inputs))  # fmt: skip
    return lstm.eval()


def close_but_for_ties(found, expected):
    """Equal to rounding, except where one code fell the other way."""
    far = (found - expected).abs() > 5e-6
    assert far.float().mean() < 0.02, (found - expected).abs().max()


@settings(deadline=None, max_examples=40)
@given(
    inputs=st.integers(1, 40), hidden=st.integers(1, 40), layers=st.integers(1, 3),
    bits=st.sampled_from([2, 3, 4, 8]), granularity=st.sampled_from(["tensor", "gate", "row"]),
    family=st.sampled_from(["fix", "max", "lsq"]), bidirectional=st.booleans(),
    batch_first=st.booleans(), bias=st.booleans(), ragged=st.booleans(), seed=st.integers(0, 999),
)  # fmt: skip
def test_lstm(inputs, hidden, layers, bits, granularity, family, bidirectional, batch_first, bias,
              ragged, seed):  # fmt: skip
    torch.manual_seed(seed)
    lstm = quantized_lstm(inputs, hidden, layers, bits, granularity, family,
                          bidirectional=bidirectional, batch_first=batch_first, bias=bias)  # fmt: skip
    x = torch.randn(4, 7, inputs)
    lengths = (
        torch.randint(1, 8 if batch_first else 5, (4 if batch_first else 7,)) if ragged else None
    )
    converted = convert(lstm)
    assert isinstance(converted, Int4LSTM)
    with torch.no_grad():
        expected, states = lstm(x, lengths=lengths)
        found, found_states = converted(x, lengths=lengths)
    close_but_for_ties(found, expected)
    for one, other in zip(found_states, states, strict=True):
        assert one.shape == other.shape
        close_but_for_ties(one, other)


def test_lstm_in_every_form_of_input():
    torch.manual_seed(0)
    lstm = quantized_lstm(5, 6, 2, bidirectional=True)
    converted = convert(lstm)
    x, hx = torch.randn(9, 3, 5), tuple(torch.randn(4, 3, 6).tanh() for _ in range(2))
    lengths = torch.tensor([4, 9, 1])
    with torch.no_grad():
        for arguments in ((x, hx), (x[:, 0], tuple(s[:, 0] for s in hx)), (x,)):
            found, expected = converted(*arguments), lstm(*arguments)
            torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        found, expected = converted(packed, hx), lstm(packed, hx)
        for one, other in zip(pad_packed_sequence(found[0]), pad_packed_sequence(expected[0]),
                              strict=True):  # fmt: skip
            torch.testing.assert_close(one, other, rtol=0, atol=2e-6)
        torch.testing.assert_close(found[1], expected[1], rtol=0, atol=4e-6)
        assert converted(x, lengths=lengths, final_states=False)[1] is None
        wide = converted(x.double())[0]
        assert wide.dtype == torch.float32 and torch.equal(wide, converted(x)[0])


def test_chunks_give_the_codes_of_the_whole():
    torch.manual_seed(1)
    converted = convert(quantized_lstm(10, 33, 3))
    x = torch.randn(40, 2, 10)
    whole, states, codes = converted.run(x, with_codes=True)
    pieces, parts, carried = [], [], None
    for chunk in x.split([1, 7, 0 + 2, 30]):
        out, carried, part = converted.run(chunk, carried, with_codes=True)
        pieces.append(out)
        parts.append(part)
    assert torch.equal(torch.cat(parts, dim=1), codes)
    assert torch.equal(torch.cat(pieces), whole)
    assert all(torch.equal(a, b) for a, b in zip(carried, states, strict=True))


def test_lstm_refuses_as_pytorch_does():
    lstm = convert(quantized_lstm(5, 6))
    with pytest.raises(RuntimeError, match="Expected 5, got 4"):
        lstm(torch.randn(3, 2, 4))
    with pytest.raises(RuntimeError, match=r"Expected hidden\[1\] size \(1, 2, 6\)"):
        lstm(torch.randn(3, 2, 5), (torch.zeros(1, 2, 6), torch.zeros(1, 2, 5)))
    with pytest.raises(ValueError, match="2D or 3D"):
        lstm(torch.randn(5))
    with pytest.raises(RuntimeError, match="larger than 0"):
        lstm(torch.randn(0, 2, 5))
    with pytest.raises(ValueError, match="NaN"):
        lstm(torch.full((3, 2, 5), float("nan")))
    with pytest.raises(ValueError, match="batch positions"):
        lstm(torch.randn(3, 2, 5), lengths=torch.tensor([0, 4]))
    with pytest.raises(RuntimeError, match="for inference"):
        lstm(torch.randn(3, 2, 5, requires_grad=True))


@pytest.mark.parametrize("weight_bits, input_bits", [(4, 4), (4, 8), (8, 8), (2, 4)])
def test_linear(weight_bits, input_bits):
    torch.manual_seed(2)
    layer = QuantLinear(37, 70)
    apply_scheme(layer, {"linear": {
        "weight": {"quantizer": "max", "bits": weight_bits, "granularity": "row"},
        "input": {"quantizer": "fix", "bits": input_bits, "clip": 2.0}}})  # fmt: skip
    converted, x = convert(layer.eval()), torch.randn(2, 3, 4, 37)
    assert isinstance(converted, Int4Linear)
    with torch.no_grad():
        torch.testing.assert_close(converted(x), layer(x), rtol=1e-5, atol=1e-5)
        assert converted(x[0, 0, 0]).shape == (70,)
        assert converted(x[:0]).shape == (0, 3, 4, 70)
    with pytest.raises(RuntimeError, match="the last size has to be 37"):
        converted(torch.randn(3, 36))


def test_embedding():
    table = QuantEmbedding(9, 13, padding_idx=0)
    apply_scheme(table, {"embedding": {"weight": {"quantizer": "max", "bits": 4}}})
    converted, ids = convert(table.eval()), torch.tensor([[0, 8], [3, 3]])
    assert isinstance(converted, Int4Embedding)
    torch.testing.assert_close(converted(ids), table(ids).detach(), rtol=0, atol=1e-7)
    with pytest.raises(IndexError, match="ids 0 to 9; valid are 0 to 8"):
        converted(torch.tensor([0, 9]))


# ---- models --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    built, batch = build_transducer(SCHEME), random_batch()
    use_int4(built, "emulated")
    with calibrating(built), torch.no_grad():
        built(**batch)
    with torch.no_grad():
        built.eval()(**batch)  # sets learned clips of weights
    return built


def kinds(model):
    return {type(m).__name__ for m in model.modules() if "Quant" in type(m).__name__ or "Int4" in
            type(m).__name__} & {"QuantLSTM", "QuantLinear", "QuantEmbedding", "Int4LSTM",
                                 "Int4Linear", "Int4Embedding"}  # fmt: skip


def test_convert_replaces_all_layers_of_a_copy(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    converted = convert(model)
    assert kinds(converted) == {"Int4LSTM", "Int4Linear", "Int4Embedding"}
    assert kinds(model) == {"QuantLSTM", "QuantLinear", "QuantEmbedding"}
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    batch = random_batch()
    with torch.no_grad():
        found, _ = converted.encode(batch["speech"], batch["speech_lengths"])
        use_int4(model, "emulated")
        expected, _ = model.encode(batch["speech"], batch["speech_lengths"])
    close_but_for_ties(found, expected)


def test_structure_and_state_make_the_model_again(model):
    converted = convert(model)
    stream = io.BytesIO()
    torch.save(converted.state_dict(), stream)
    stream.seek(0)
    empty = convert_structure(build_transducer(SCHEME, seed=7), describe(converted))
    empty.load_state_dict(torch.load(stream), assign=True)
    batch = random_batch()
    with torch.no_grad():
        results = [
            m.encode(batch["speech"], batch["speech_lengths"])[0] for m in (converted, empty)
        ]
    assert torch.equal(*results)
    for copied in (copy.deepcopy(converted), pickle.loads(pickle.dumps(converted))):
        with torch.no_grad():
            assert torch.equal(
                copied.encode(batch["speech"], batch["speech_lengths"])[0], results[0]
            )


def test_what_is_in_float_stays(model):
    mixed = build_transducer(
        {**SCHEME, "linear": {"weight": SCHEME["linear"]["weight"], "input": None}}
    )
    with calibrating(mixed), torch.no_grad():
        mixed(**random_batch())
    assert kinds(convert(mixed)) == {"Int4LSTM", "QuantLinear", "Int4Embedding"}
    with pytest.raises(ValueError, match="has no layer to convert"):
        convert(build_transducer())
    with pytest.raises(ValueError, match="nowhere.weight"):
        convert_structure(build_transducer(), {"nowhere.weight.x": {"role": "weight"}})


def test_the_copy_shares_no_tensor_with_the_model(model):
    mixed = build_transducer({**SCHEME, "linear": {"weight": None, "input": None}})
    with calibrating(mixed), torch.no_grad():
        mixed(**random_batch())
    converted = convert(mixed)
    theirs = {t.data_ptr() for t in (*mixed.parameters(), *mixed.buffers())}
    own = [*converted.named_parameters(), *converted.named_buffers()]
    assert own and not [name for name, t in own if t.numel() and t.data_ptr() in theirs]
    before = {name: value.clone() for name, value in converted.state_dict().items()}
    with torch.no_grad():
        for parameter in mixed.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(before[name], value) for name, value in converted.state_dict().items())
    converted.half()
    assert {p.dtype for p in mixed.parameters()} == {torch.float32}


def test_converting_leaves_clips_of_the_model_alone():
    layer = QuantEmbedding(6, 4)
    apply_scheme(layer, {"embedding": {"weight": {"quantizer": "lsq", "bits": 4}}})
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    convert(layer)
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


MAX8 = {"quantizer": "max", "bits": 8, "granularity": "row"}


class Pair(torch.nn.Module):
    """A table that two layers share, and a layer that stands in two places."""

    def __init__(self, bits=8):
        super().__init__()
        self.table, self.out = QuantEmbedding(6, 4), QuantLinear(4, 6)
        self.out.weight = self.table.weight
        self.again = self.out
        self.within = torch.nn.ModuleList([self.out])
        self.plain = torch.nn.Linear(4, 6)
        self.tied = torch.nn.Linear(4, 6)
        self.tied.weight = self.plain.weight
        apply_scheme(self, {"embedding": {"weight": {**MAX8, "bits": bits}},
                            "linear": {"weight": MAX8, "input": {"quantizer": "fix", "bits": 8,
                                                                 "clip": 1.0}}})  # fmt: skip

    def forward(self, ids):
        return self.again(self.table(ids).tanh()), self.plain(self.table(ids))


def test_what_is_shared_stays_shared():
    pair = Pair()
    converted = convert(pair)
    assert isinstance(converted.out, Int4Linear) and converted.again is converted.out
    assert converted.within[0] is converted.out
    assert converted.table.weight is converted.out.weight
    assert converted.table.weight_scale is converted.out.weight_scale
    assert converted.tied.weight is converted.plain.weight is not pair.plain.weight
    described = describe(converted)
    assert described["out.weight"]["tied_to"] == "table.weight" and described["out.weight"]["tied"]
    ids = torch.tensor([0, 5, 3])
    with torch.no_grad():
        torch.testing.assert_close(converted(ids), pair.eval()(ids), rtol=0, atol=1e-6)
    empty = convert_structure(Pair(), described)
    empty.load_state_dict(converted.state_dict(), assign=True)
    assert empty.table.weight.data_ptr() == empty.out.weight.data_ptr()
    assert empty.again is empty.within[0] is empty.out and describe(empty) == described
    # Of other bits the codes are others.
    other = convert(Pair(bits=4))
    assert other.table.weight.shape == (6, 2) and other.out.weight.shape == (6, 4)
    assert "tied_to" not in describe(other)["out.weight"] and describe(other)["out.weight"]["tied"]


def test_a_table_that_a_float_layer_reads_too_is_copied():
    pair = Pair()
    pair.plain.weight = pair.table.weight
    converted = convert(pair)
    assert torch.equal(converted.plain.weight, pair.plain.weight)
    assert converted.plain.weight.data_ptr() != pair.plain.weight.data_ptr()


class Doubled(QuantLinear):
    def forward(self, input):
        return 2 * super().forward(input)


class Named(QuantLinear):
    def extra_repr(self):
        return "named"


def small(kind):
    layer = kind(4, 3)
    apply_scheme(layer, {"linear": {"weight": MAX8, "input": {"quantizer": "fix", "bits": 8,
                                                              "clip": 1.0}}})  # fmt: skip
    return torch.nn.Sequential(torch.nn.Tanh(), layer)


def test_code_that_conversion_would_drop_is_refused():
    with pytest.raises(ValueError, match="1: Doubled defines forward of its own.*by an override"):
        convert(small(Doubled))
    assert isinstance(convert(small(Named))[1], Int4Linear)
    hooked = small(QuantLinear)
    handle = hooked[1].register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="1: QuantLinear has a forward hook"):
        convert(hooked)
    handle.remove()
    convert(hooked)
    # In float by the scheme it stays what it is; the rest is converted.
    both = torch.nn.ModuleDict({"own": Doubled(4, 3), "layer": QuantLinear(4, 3)})
    apply_scheme(both, {"linear": {"weight": MAX8, "input": {"quantizer": "fix", "bits": 8,
                                                             "clip": 1.0}},
                        "overrides": [{"pattern": "own", "weight": None, "input": None}]})  # fmt: skip
    converted = convert(both)
    assert type(converted["own"]) is Doubled and isinstance(converted["layer"], Int4Linear)
    (part,) = parts_in_float(converted)
    assert (part.name, part.kind, part.parameters) == ("own", "Doubled", 15)
    assert part.reason == "all in float by the scheme"


def test_what_cannot_be_converted_is_told(model):
    with pytest.raises(ValueError, match="is converted already: use it"):
        convert(convert(model))
    with pytest.raises(ValueError, match="no layer to convert: none has a scheme"):
        convert(build_transducer())
    with pytest.raises(ValueError, match="no layer to convert: none is of espnet_quant4.nn"):
        convert(torch.nn.Linear(3, 4))
    weights = build_transducer({"linear": {"weight": SCHEME["linear"]["weight"]}})
    with pytest.raises(ValueError, match=r"leaves a part of each in float: .*ctc_lo \(input\)"):
        convert(weights)


def test_no_quantized_layer_stays_in_float_for_want_of_a_clip(model):
    unset = copy.deepcopy(model)
    quantizer = unset.joint_network.lin_out.quantizers["input"]
    quantizer.calibrated.zero_()
    quantizer._known_calibrated = False
    with pytest.raises(ValueError, match="1 clips .* never set: joint_network.lin_out.input. Cali"):
        convert(unset)


# ---- inference of a model that stays what it is --------------------------------------------------


def test_runner_follows_the_weights_and_leaves_training_alone(model):
    layer = copy.deepcopy(model.ctc.ctc_lo)
    use_int4(layer, "int4")
    x = torch.randn(5, layer.in_features).tanh()
    with torch.no_grad():
        first = layer(x)
        assert torch.equal(first, convert(layer)(x)) and "_converted" in layer.__dict__
        layer.weight.mul_(2.0)
        assert torch.equal(layer(x), convert(layer)(x)) and not torch.equal(layer(x), first)
    assert layer(x).requires_grad
    layer.train()
    with torch.no_grad():
        layer(x)
    assert "_converted" not in pickle.loads(pickle.dumps(layer)).__dict__
    use_int4(layer, "emulated")
    assert layer.inference_runner is None


def test_environment_chooses_the_inference(model, monkeypatch):
    monkeypatch.setenv("ESPNET_QUANT4_INFERENCE", "emulated")
    use_int4(model, "int4")
    assert model.ctc.ctc_lo.inference_runner is None
    monkeypatch.setenv("ESPNET_QUANT4_INFERENCE", "int5")
    with pytest.raises(ValueError, match="ESPNET_QUANT4_INFERENCE: 'int5'; valid: int4, emulated"):
        use_int4(model)
    monkeypatch.delenv("ESPNET_QUANT4_INFERENCE")
    with pytest.raises(ValueError, match="model_conf: inference: 'fast'"):
        build_transducer(SCHEME, inference="fast")
    assert build_transducer(SCHEME).ctc.ctc_lo.inference_runner is not None


def test_model_evaluates_on_codes_without_being_told(model, monkeypatch):
    calls = []
    real = native.NativeLSTM.call
    monkeypatch.setattr(
        native.NativeLSTM, "call", lambda self, *fields: (calls.append(1), real(self, *fields))
    )
    use_int4(model)
    batch = random_batch()
    with torch.no_grad():
        found, _ = model.encode(batch["speech"], batch["speech_lengths"])
        assert calls
        use_int4(model, "emulated")
        calls.clear()
        expected, _ = model.encode(batch["speech"], batch["speech_lengths"])
        assert not calls
    close_but_for_ties(found, expected)


def test_layers_without_a_quantized_form_are_listed():
    model = torch.nn.ModuleDict({"conv": torch.nn.Conv2d(1, 2, 3), "layers": small(QuantLinear)})
    (part,) = parts_in_float(convert(model))
    assert (part.name, part.kind, part.parameters) == ("conv", "Conv2d", 20)
    assert part.reason == "has no quantized form"
