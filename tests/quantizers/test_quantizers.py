"""All quantizers: the grid, gradients by hand, state, odd input."""

import copy
import pickle
import re
from pathlib import Path

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_quant4 import quantizers
from espnet_quant4.quantizers import Quantizer, build, register
from espnet_quant4.quantizers.registry import names, options_of

EXTRA = {"fix": {"clip": 0.8}, "percentile": {"percentile": 90.0}}


def make(name, bits=4, role="weight", groups=1):
    return build({"quantizer": name, "bits": bits, **EXTRA.get(name, {})}, role, groups)


def by_definition(x, clips, max_code):
    """The grid in plain numpy: a clip for each block of rows."""
    rows = numpy.repeat(clips, x.shape[0] // len(clips))[:, None].astype(numpy.float32)
    scale = rows / numpy.float32(max_code)
    codes = numpy.rint(numpy.clip(x, -rows, rows) / scale)
    return codes, codes * scale


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(names()),
    st.integers(2, 8),
    st.sampled_from([1, 2, 4]),
    st.integers(1, 3),
    st.integers(1, 40),
    st.integers(0, 1000),
)
def test_values_follow_the_definition(name, bits, groups, block, columns, seed):
    torch.manual_seed(seed)
    x = torch.randn(groups * block, columns)
    quantizer = make(name, bits, groups=groups)
    y = quantizer(x)
    clips = quantizer.clip(x).detach()
    assert clips.shape == (groups,) and (clips > 0).all()
    codes, values = by_definition(x.numpy(), clips.numpy(), 2 ** (bits - 1) - 1)
    numpy.testing.assert_allclose(y.detach().numpy(), values, rtol=1e-5, atol=1e-6)
    got = quantizer.codes(x)
    assert got.dtype == torch.int8
    numpy.testing.assert_array_equal(got.numpy(), codes)
    torch.testing.assert_close(quantizer.scale(x) * quantizer.max_code, quantizer.clip(x))


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("shape", [(0, 3), (4, 0)])
def test_empty_activations(name, shape):
    quantizer = make(name, role="activation")
    with torch.no_grad():
        quantizer.calibrated.fill_(1)
    assert quantizer.quantize(torch.zeros(shape)).shape == shape
    assert quantizer.train()(torch.zeros(shape)).shape == shape
    assert quantizer.codes(torch.zeros(shape)).shape == shape


@pytest.mark.parametrize("name", names())
def test_empty_weights(name):
    assert make(name, groups=2)(torch.zeros(4, 0)).shape == (4, 0)


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("role", ["weight", "activation"])
def test_zeros_give_zeros(name, role):
    quantizer = make(name, role=role)
    with torch.no_grad():
        quantizer.calibrated.fill_(1)
    x = torch.zeros(4, 5, requires_grad=True)
    y = quantizer(x)
    y.sum().backward()
    assert (y == 0).all() and x.grad.isfinite().all()


@pytest.mark.parametrize("name", names())
def test_nan_stays_nan(name):
    quantizer = make(name, role="activation")
    with torch.no_grad():
        quantizer.calibrated.fill_(1)
    x = torch.tensor([[0.3, float("nan"), -0.2]])
    quantizer.observe(x)
    assert quantizer.clip_value.isfinite().all()
    assert quantizer.quantize(x).isnan().tolist() == [[False, True, False]]
    with pytest.raises(ValueError, match="1 of 3 values are NaN"):
        quantizer.codes(x)


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_float32_under_autocast(name, dtype):
    quantizer = make(name)
    x = torch.randn(8, 16)
    expected = quantizer(x)
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(quantizer(x), expected)
        assert quantizer(x.to(dtype)).dtype == torch.float32


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("role", ["weight", "activation"])
def test_clips_are_float32_in_a_model_of_half_precision(name, role):
    quantizer = make(name, role=role).half()
    with torch.no_grad():
        quantizer.calibrated.fill_(1)
    x = torch.randn(4, 6, dtype=torch.float16, requires_grad=True)
    y = quantizer.quantize(x)
    assert y.dtype == quantizer.clip(x).dtype == quantizer.scale(x).dtype == torch.float32
    y.sum().backward()
    assert x.grad.dtype == torch.float16 and x.grad.isfinite().all()


@pytest.mark.parametrize("name", names())
def test_copies_and_state(name):
    quantizer = make(name, role="activation")
    with torch.no_grad():
        quantizer.clip_value.fill_(0.8)
        quantizer.calibrated.fill_(1)
    x = torch.randn(4, 6)
    expected = quantizer.quantize(x)
    loaded = make(name, role="activation")
    loaded.load_state_dict(quantizer.state_dict())
    for twin in (copy.deepcopy(quantizer), pickle.loads(pickle.dumps(quantizer)), loaded):
        assert twin.is_calibrated and torch.equal(twin.quantize(x), expected)


@pytest.mark.parametrize("source", names())
@pytest.mark.parametrize("target", ["pact+", "max", "fix"])
def test_clips_load_from_other_quantizers(source, target):
    """A calibrated checkpoint of one scheme starts another; `fix` keeps its own constant."""
    state = make(source, role="activation").state_dict()
    state["clip_value"], state["calibrated"] = torch.tensor([2.5]), torch.tensor(1)
    quantizer = make(target, role="activation")
    quantizer.load_state_dict(state)
    assert quantizer.is_calibrated
    assert quantizer.clip().item() == pytest.approx(0.8 if target == "fix" else 2.5)


@pytest.mark.parametrize("source", names())
@pytest.mark.parametrize("target", names())
def test_weights_load_from_schemes_of_other_granularity(source, target):
    weight = torch.randn(8, 5)
    four = make(source, groups=4)
    four(weight)
    one = make(target)
    expected = one(weight)
    loaded = make(target)
    loaded.load_state_dict(four.state_dict())
    assert torch.equal(loaded(weight), expected)


@pytest.mark.parametrize("name", names())
def test_codes_need_no_forward_pass_before(name):
    weight = 0.05 * torch.randn(8, 5)
    assert torch.equal(make(name).codes(weight), trained(name, weight).codes(weight))


def trained(name, weight):
    quantizer = make(name)
    quantizer(weight)
    return quantizer


@pytest.mark.parametrize("name", names())
def test_averaging_checkpoints(name):
    """As ESPnet does: integers are summed, all else is averaged."""
    states = []
    for clip in (0.5, 1.5):
        quantizer = make(name, role="activation")
        with torch.no_grad():
            quantizer.clip_value.fill_(clip)
            quantizer.calibrated.fill_(1)
        states.append(quantizer.state_dict())
    total = {key: states[0][key] + states[1][key] for key in states[0]}
    average = {k: v if str(v.dtype).startswith("torch.int") else v / 2 for k, v in total.items()}
    quantizer = make(name, role="activation")
    quantizer.load_state_dict(average)
    assert quantizer.is_calibrated and quantizer.calibrated.dtype == torch.int64
    assert quantizer.clip().item() == pytest.approx(EXTRA.get(name, {}).get("clip", 1.0))


# ---- gradients by hand --------------------------------------------------------------------------

X = torch.tensor([[-2.0, -0.9, -0.1, 0.0, 0.45, 1.0, 3.0]])


def run(quantizer):
    x = X.clone().requires_grad_()
    quantizer.quantize(x).sum().backward()
    return x.grad.flatten().tolist()


STOPPING, PASSING, LEARNING = (
    ["fix", "max", "percentile", "mse", "sawb"],
    ["sawb+"],
    ["pact", "pact+", "lsq"],
)


def test_every_quantizer_has_its_gradient_tested():
    assert sorted(STOPPING + PASSING + LEARNING) == names()


@pytest.mark.parametrize("name", STOPPING)
def test_gradient_stops_outside_the_clip(name):
    quantizer = build({"quantizer": name, "bits": 4}, "activation")
    with torch.no_grad():
        quantizer.clip_value.fill_(1.0)
        quantizer.calibrated.fill_(1)
    assert run(quantizer) == [0, 1, 1, 1, 1, 1, 0]


@pytest.mark.parametrize("name", PASSING)
def test_gradient_passes_everywhere(name):
    quantizer = make(name, role="activation")
    with torch.no_grad():
        quantizer.calibrated.fill_(1)
    assert run(quantizer) == [1] * 7


@pytest.mark.parametrize("name", LEARNING)
def test_learned_clips_by_hand(name):
    quantizer = build({"quantizer": name, "bits": 4}, "activation")
    with torch.no_grad():
        quantizer.calibrated.fill_(1)
    assert run(quantizer) == [0, 1, 1, 1, 1, 0, 0]
    clipped = -1.0 + 1.0 + 1.0
    inside = [-0.9, -0.1, 0.0, 0.45]
    residual = sum(round(7 * v) / 7 - v for v in inside)
    expected = {
        "pact": clipped,
        "pact+": clipped + residual,
        # Esser et al., equation 3 and section 2.2: dq/ds = sum(round(v/s) - v/s) inside, Q outside;
        # times g = 1/sqrt(N Q); a step of s moves the clip Q s by Q times as much.
        "lsq": 7 * (sum(round(7 * v) - 7 * v for v in inside) + 7 * clipped) / (7 * 7) ** 0.5,
    }[name]
    assert quantizer.clip_value.grad.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", LEARNING)
def test_groups_have_clip_gradients_of_their_own(name):
    torch.manual_seed(0)
    x = torch.randn(6, 5)
    whole = build({"quantizer": name, "bits": 4}, "weight", groups=3)
    whole(x).square().sum().backward()
    for group in range(3):
        rows = x[2 * group : 2 * group + 2]
        single = build({"quantizer": name, "bits": 4}, "weight")
        with torch.no_grad():
            single.clip_value.copy_(whole.clip_value[group])
            single.calibrated.fill_(1)
        single(rows).square().sum().backward()
        torch.testing.assert_close(single.clip_value.grad[0], whole.clip_value.grad[group])


@pytest.mark.parametrize("name", LEARNING)
def test_a_clip_below_zero_stays_in_use_and_gets_a_gradient(name):
    quantizer = build({"quantizer": name, "bits": 4}, "activation")
    with torch.no_grad():
        quantizer.clip_value.fill_(-0.5)
        quantizer.calibrated.fill_(1)
    y = quantizer.quantize(torch.tensor([[1.0, 2.0]]))
    assert y.isfinite().all()
    y.sum().backward()
    assert quantizer.clip_value.grad.item() > 0


def test_running_maximum_follows_training_data_only():
    quantizer = make("max", role="activation")
    with torch.no_grad():
        quantizer.clip_value.fill_(0.5)
        quantizer.calibrated.fill_(1)
    quantizer.eval()(torch.tensor([[4.0]]))
    assert quantizer.clip().item() == 0.5
    quantizer.train()(torch.tensor([[-2.0, 1.0]]))
    quantizer(torch.tensor([[1.0]]))
    assert quantizer.clip().item() == 2.0


def test_running_maximum_starts_with_the_first_data():
    quantizer = make("max", role="activation").train()
    quantizer(torch.zeros(2, 3))
    assert not quantizer.is_calibrated
    quantizer(torch.tensor([[0.1, -0.2]]))
    assert quantizer.is_calibrated and quantizer.clip().item() == pytest.approx(0.2)


# ---- registry -----------------------------------------------------------------------------------


def test_every_quantizer_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "quantizers.md").read_text()
    for name in names():
        assert re.search(rf"^### `{re.escape(name)}`$", page, re.MULTILINE), name
        section = page.split(f"### `{name}`\n")[1].split("\n### ")[0]
        for option in options_of(name):
            assert f"`{option}`" in section, (name, option)


def test_a_user_adds_a_quantizer():
    @register("user_defined")
    class UserDefined(quantizers.get_class("max")):
        def weight_clip(self, weight):
            return 2 * super().weight_clip(weight)

    try:
        quantizer = build({"quantizer": "user_defined", "bits": 3}, "weight")
        assert quantizer.clip(torch.tensor([[1.0, -2.0]])).item() == 4.0
        with pytest.raises(ValueError, match="taken by"):
            register("user_defined")(quantizers.get_class("max"))
        elsewhere = type("UserDefined", (Quantizer,), {"__module__": "elsewhere"})
        elsewhere.__qualname__ = UserDefined.__qualname__
        with pytest.raises(ValueError, match="taken by"):
            register("user_defined")(elsewhere)
    finally:
        del quantizers.registry._CLASSES["user_defined"]


def test_wrong_registration_and_names():
    with pytest.raises(TypeError, match="not a subclass"):
        register("nothing")(dict)
    with pytest.raises(TypeError, match="give a name"):
        register(Quantizer)
    with pytest.raises(ValueError, match="Did you mean 'pact'"):
        build({"quantizer": "pakt", "bits": 4}, "weight")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 1}, "bits: 1; valid: 2 to 8"),
        ({"bits": 9}, "bits: 9"),
        ({"bits": 4, "init": "median"}, "init: 'median'; valid: mse, percentile, max"),
        ({"bits": 4, "init_percentile": 0.0}, "init_percentile"),
    ],
)
def test_wrong_values_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        build({"quantizer": "pact", **options}, "weight")
    for clip in (-1, 0, float("inf"), float("nan"), "1", True):
        with pytest.raises(ValueError, match=f"clip: {clip!r}; valid: numbers above 0"):
            build({"quantizer": "fix", "bits": 4, "clip": clip}, "weight")
    with pytest.raises(ValueError, match="role"):
        build({"quantizer": "fix", "bits": 4}, "bias")


def test_rows_that_do_not_divide():
    with pytest.raises(ValueError, match="5 rows cannot be cut into 4 groups"):
        build({"quantizer": "fix", "bits": 4}, "weight", 4).spread(torch.ones(4), torch.ones(5, 2))


def test_base_is_abstract():
    with pytest.raises(NotImplementedError):
        Quantizer(4, role="activation").fake_quantize(torch.zeros(1))
