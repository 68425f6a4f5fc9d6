"""The fused kernels against the reference loop: outputs, final states, every gradient."""

import copy
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence

import espnet_quant4.nn.lstm as lstm_module
from espnet_quant4.kernels import fused_lstm, native
from espnet_quant4.kernels.fused_lstm import Layer, lstm_layer
from espnet_quant4.kernels.gradient_rules import GradientRule
from espnet_quant4.nn import QuantLSTM
from espnet_quant4.quantizers import Quantizer, names, registry
from espnet_quant4.quantizers.calibration import calibrating

# Families that set their clip from data, and those that have it.
HIDDEN = [
    None,
    {"quantizer": "fix", "bits": 4, "clip": 1.0, "allow_clipping": True},
    {"quantizer": "fix", "bits": 4, "clip": 0.15, "allow_clipping": True},
    {"quantizer": "max", "bits": 4},
    {"quantizer": "percentile", "bits": 3, "percentile": 80.0},
    {"quantizer": "mse", "bits": 2},
    {"quantizer": "sawb", "bits": 4},
    {"quantizer": "sawb+", "bits": 4},
    {"quantizer": "pact", "bits": 4, "init": "percentile", "init_percentile": 80.0},
    {"quantizer": "pact+", "bits": 4, "init": "percentile", "init_percentile": 80.0},
    {"quantizer": "lsq", "bits": 4},
    {"quantizer": "fix", "bits": 8, "clip": 1.0, "allow_clipping": True},
]
INPUT = [None, {"quantizer": "pact+", "bits": 4}, {"quantizer": "lsq", "bits": 8},
         {"quantizer": "max", "bits": 4}]  # fmt: skip
WEIGHT = [
    None,
    {"quantizer": "sawb+", "bits": 4, "granularity": "gate"},
    {"quantizer": "max", "bits": 4, "granularity": "tensor"},
    {"quantizer": "lsq", "bits": 4, "granularity": "row"},
]

cases = st.fixed_dictionaries(
    {
        "input_size": st.integers(1, 20),
        "hidden_size": st.one_of(st.sampled_from([8, 16, 32, 33]), st.integers(1, 40)),
        "num_layers": st.integers(1, 3),
        "bidirectional": st.booleans(),
        "batch_first": st.booleans(),
        "bias": st.booleans(),
    }
)


def build(options, hidden, input=None, weight=None, seed=0):
    torch.manual_seed(seed)
    lstm = QuantLSTM(**options)
    specification = {"weight_ih": weight, "weight_hh": weight, "input": input, "hidden": hidden}
    for suffix, _ in lstm.quant_sites():
        lstm.set_quantizers(suffix, specification)
    return lstm


def draw(options, frames, batch, ragged, with_states):
    x = torch.randn(frames, batch, options["input_size"])
    if options["batch_first"]:
        x = x.transpose(0, 1).contiguous()
    lengths = torch.randint(1, frames + 1, (batch,)) if ragged else None
    rows = options["num_layers"] * (2 if options["bidirectional"] else 1)
    states = [torch.randn(rows, batch, options["hidden_size"]) for _ in range(2)]
    return x, lengths, states if with_states else None


def run(lstm, x, lengths, states, what="all"):
    """Outputs and all gradients, of one of the outputs or of all."""
    x = x.clone().requires_grad_()
    states = None if states is None else tuple(s.clone().requires_grad_() for s in states)
    output, final = lstm(x, states, lengths=lengths)
    found = {"output": output, "hidden": final[0], "cell": final[1]}
    generator = torch.Generator().manual_seed(1)
    weights = {k: torch.randn(v.shape, generator=generator) for k, v in found.items()}
    loss = sum((found[k] * weights[k]).sum() for k in found if what in ("all", k))
    wanted = {"x": x, **dict(lstm.named_parameters())}
    if states is not None:
        wanted |= {"initial_hidden": states[0], "initial_cell": states[1]}
    gradients = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    for name, gradient in zip(wanted, gradients, strict=True):
        # No path and a path of zeros are the same to an optimizer.
        found[f"d {name}"] = torch.zeros_like(wanted[name]) if gradient is None else gradient
    return {name: tensor.detach() for name, tensor in found.items()}


def nearest_tie(lstm, recorded):
    """How near, in steps, a hidden state of the loop came to where rounding or clipping decides."""
    nearest = 1.0
    for layer, outputs in enumerate(recorded):
        for direction, quantizer in enumerate(lstm._hidden_quantizers(layer)):
            if quantizer is not None:
                clip = float(quantizer.clip().detach())
                magnitude = outputs[:, direction].detach().abs()
                level = magnitude / (clip / quantizer.max_code)
                inside = magnitude <= clip
                distance = (level - level.floor() - 0.5).abs()
                if inside.any():
                    nearest = min(nearest, float(distance[inside].min()))
                nearest = min(nearest, float((magnitude - clip).abs().min()) / clip)
    return nearest


def near(name, tensor):
    """Absolute tolerance; a clip's gradient is a sum over all elements, which mostly cancel."""
    return (1e-4 if "clip_value" in name else 1e-5) * max(1.0, float(tensor.abs().max()))


def compare(lstm, *arguments):
    """Hold the fused form to the loop; both start from the same quantizer state."""
    fused, loop = lstm, copy.deepcopy(lstm)
    loop.fused = False
    recorded = []
    recurrence = lstm_module.lstm_recurrence_for_training

    def recording(*args):
        result = recurrence(*args)
        recorded.append(result[0])
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lstm_module, "lstm_recurrence_for_training", recording)
        before = copy.deepcopy(loop)
        expected = run(loop, *arguments)
        assume(nearest_tie(before, recorded) > 1e-5)
        calls = len(recorded)
        got = run(fused, *arguments)
        assert len(recorded) == calls, "the fused module took the loop"
    for name, tensor in expected.items():
        torch.testing.assert_close(
            got[name], tensor, atol=near(name, tensor), rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )
    torch.testing.assert_close(fused.state_dict(), loop.state_dict())


@settings(max_examples=150, deadline=None)
@given(
    cases, st.sampled_from(HIDDEN), st.sampled_from(INPUT), st.sampled_from(WEIGHT),
    st.integers(1, 9), st.integers(1, 14), st.booleans(), st.booleans(),
    st.sampled_from(["all", "output", "hidden", "cell"]), st.integers(1, 3), st.integers(0, 2**16),
)  # fmt: skip
def test_equals_the_reference_loop(
    options, hidden, input, weight, frames, batch, ragged, with_states, what, threads, seed
):
    lstm = build(options, hidden, input, weight, seed)
    arguments = draw(options, frames, batch, ragged, with_states)
    with calibrating(lstm):
        lstm(*arguments[:1], arguments[2], lengths=arguments[1])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        if hidden is None:  # the loop of a float recurrence is PyTorch's own
            expected, got = copy.deepcopy(lstm), lstm
            expected.fused = False
            left, right = run(expected, *arguments, what), run(got, *arguments, what)
            for name, tensor in left.items():
                torch.testing.assert_close(right[name], tensor, atol=near(name, tensor), rtol=1e-4)
        else:
            compare(lstm, *arguments, what)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("hidden", [h for h in HIDDEN if h], ids=lambda h: str(h["quantizer"]))
def test_calibration_sees_the_same(hidden):
    options = {"input_size": 5, "hidden_size": 12, "num_layers": 2, "bidirectional": True,
               "batch_first": True, "bias": True}  # fmt: skip
    fused = build(options, hidden)
    loop = copy.deepcopy(fused)
    loop.fused = False
    x, lengths, _ = draw(options, 11, 4, True, False)
    for lstm in (fused, loop):
        with calibrating(lstm):
            lstm(x, lengths=lengths)
    torch.testing.assert_close(fused.state_dict(), loop.state_dict(), atol=1e-6, rtol=1e-4)


def test_every_quantizer_is_compared():
    assert set(names()) == {entry["quantizer"] for entry in HIDDEN if entry}


class OwnRounding(Quantizer):
    """Rounds towards zero, which no kernel does."""

    def __init__(self, bits, groups=1, role="activation"):
        super().__init__(bits, groups, role)
        with torch.no_grad():
            self.calibrated.fill_(1)

    def fake_quantize(self, x):
        return x + ((x * self.max_code).trunc() / self.max_code - x).detach()


def test_own_rounding_takes_the_loop(monkeypatch):
    options = {"input_size": 4, "hidden_size": 6, "bidirectional": True}
    monkeypatch.setitem(registry._CLASSES, "own_rounding", OwnRounding)
    lstm = build(options, {"quantizer": "own_rounding", "bits": 4})
    monkeypatch.setattr(fused_lstm._LSTMLayer, "apply", None)
    x = torch.randn(5, 3, 4)
    output, _ = lstm(x)
    levels = output.detach()
    again, _ = lstm(x)
    torch.testing.assert_close(again.detach(), levels)
    output.sum().backward()
    assert lstm.weight_hh_l0.grad.abs().sum() > 0


def takes_loop(lstm, x, monkeypatch):
    called = []
    original = lstm_module.lstm_recurrence_for_training
    monkeypatch.setattr(
        lstm_module,
        "lstm_recurrence_for_training",
        lambda *a: called.append(1) or original(*a),
    )
    output, _ = lstm(x)
    output.float().sum().backward()
    return bool(called), output


def test_double_precision_is_not_fused():
    lstm, plain = QuantLSTM(4, 6).double(), torch.nn.LSTM(4, 6).double()
    lstm.load_state_dict(plain.state_dict())
    x = torch.randn(9, 3, 4, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(lstm(x), plain(x), rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(lambda x: lstm(x)[0], x)


def test_autocast_takes_the_loop(monkeypatch):
    fix = {"quantizer": "fix", "bits": 4, "clip": 1.0, "allow_clipping": True}
    x = torch.randn(9, 3, 4)
    lstm = build({"input_size": 4, "hidden_size": 6}, fix)
    assert not takes_loop(lstm, x, monkeypatch)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert takes_loop(lstm, x, monkeypatch)[0]
    lstm.fused = False
    assert takes_loop(lstm, x, monkeypatch)[0]


def test_without_the_library_the_loop_serves(tmp_path):
    code = (
        "import torch, warnings; warnings.simplefilter('ignore')\n"
        "from espnet_quant4.nn import QuantLSTM\n"
        "lstm = QuantLSTM(4, 6)\n"
        "lstm.set_quantizers('l0', {'hidden': {'quantizer': 'fix', 'bits': 4, 'clip': 1.0}})\n"
        "lstm(torch.randn(9, 2, 4))[0].sum().backward()\n"
        "print(float(lstm.weight_hh_l0.grad.abs().sum()) > 0)"
    )
    environment = {**os.environ, "ESPNET_QUANT4_LIBRARY": str(tmp_path / "none.so")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "True", done.stderr


@pytest.mark.parametrize(
    "hidden", [None, {"quantizer": "fix", "bits": 4, "clip": 1.0, "allow_clipping": True}]
)
def test_packed_input_equals_lengths(hidden):
    lstm = build(
        {"input_size": 4, "hidden_size": 9, "bidirectional": True, "num_layers": 2}, hidden
    )
    x, lengths = torch.randn(8, 3, 4), torch.tensor([3, 8, 5])
    expected, expected_states = lstm(x, lengths=lengths)
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    output, states = lstm(packed)
    padded, _ = torch.nn.utils.rnn.pad_packed_sequence(output)
    torch.testing.assert_close(padded, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(states, expected_states, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("hidden", [h for h in HIDDEN if h], ids=lambda h: str(h["quantizer"]))
def test_nan_stays_visible(hidden):
    lstm = build({"input_size": 4, "hidden_size": 19, "num_layers": 2}, hidden)
    x = torch.randn(9, 3, 4)
    with calibrating(lstm):
        lstm(x)
    x[2, 1, 0] = float("nan")
    x.requires_grad_()
    output, states = lstm(x)
    assert output[2:, 1].isnan().all() and output[:2].isfinite().all()
    assert output[:, [0, 2]].isfinite().all() and states[1][:, 1].isnan().all()
    output.sum().backward()
    assert x.grad[:, 1].isnan().any() and lstm.weight_hh_l0.grad.isnan().any()


@pytest.mark.parametrize("value", [1e4, -1e4, float("inf"), 1e-30])
def test_extreme_gates_equal_pytorch(value):
    torch.manual_seed(0)
    lstm, plain = QuantLSTM(3, 21), torch.nn.LSTM(3, 21)
    lstm.load_state_dict(plain.state_dict())
    x = torch.randn(9, 2, 3)
    x[4, 0, 1] = value
    output, (hidden, cell) = lstm(x)
    expected, (expected_hidden, expected_cell) = plain(x)
    for got, wanted in [(output, expected), (hidden, expected_hidden), (cell, expected_cell)]:
        torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-5, equal_nan=True)


def test_small_values_keep_their_relative_precision():
    gates = torch.zeros(1, 1, 1, 4 * 5)
    gates[..., 10:15] = torch.tensor([1e-6, 1e-3, 0.05, 0.0799, 0.081])
    weight = torch.zeros(1, 20, 5)
    layer = Layer((1,), (GradientRule.NONE,))
    x = gates.view(1, 1, 20)
    identity = torch.eye(20).unsqueeze(0)
    output, _, _, cell = lstm_layer(x, identity, weight, None, None, None, torch.ones(1), layer)
    expected = 0.5 * torch.tanh(gates.double()[0, 0, 0, 10:15])
    torch.testing.assert_close(cell.double().flatten(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        output.double().flatten(), 0.5 * torch.tanh(expected), rtol=1e-6, atol=0
    )


def test_backward_twice_with_a_kept_graph():
    fix = {"quantizer": "fix", "bits": 4, "clip": 0.1, "allow_clipping": True}
    lstm = build({"input_size": 4, "hidden_size": 6, "num_layers": 2}, fix)
    loss = lstm(torch.randn(9, 2, 4))[0].square().sum()
    parameters = list(lstm.parameters())
    first = torch.autograd.grad(loss, parameters, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss, parameters), first)


def test_second_derivative_is_refused():
    lstm = QuantLSTM(4, 6)
    x = torch.randn(9, 2, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(lstm(x)[0].square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.square().sum().backward()


@pytest.mark.parametrize(
    "hidden", [None, {"quantizer": "fix", "bits": 4, "clip": 1.0, "allow_clipping": True}]
)
def test_wrong_input_fails_as_in_torch(hidden):
    lstm, plain = build({"input_size": 4, "hidden_size": 6}, hidden), torch.nn.LSTM(4, 6)
    states = (torch.zeros(1, 2, 6), torch.zeros(1, 2, 5))
    for arguments in (
        (torch.randn(5, 2, 3),),
        (torch.randn(5, 2, 4).double(),),
        (torch.zeros(5, 2, 4, dtype=torch.int64),),
        (torch.randn(5, 2, 4, device="meta"),),
        (torch.randn(5, 2, 4), states),
        (torch.randn(5, 2, 4), (torch.zeros(1, 3, 6), torch.zeros(1, 3, 6))),
        (torch.randn(0, 2, 4),),
        (torch.randn(4),),
    ):
        with pytest.raises((RuntimeError, ValueError)) as expected:
            plain(*arguments)[0].sum().backward()
        with pytest.raises((RuntimeError, ValueError)) as got:
            lstm(*arguments)[0].sum().backward()
        assert issubclass(got.type, expected.type) or issubclass(expected.type, got.type), arguments
    assert lstm(torch.randn(5, 0, 4))[0].shape == (5, 0, 6)


def kept_bytes(module, x):
    """Bytes that autograd keeps for the backward pass, the parameters not counted."""
    parameters = {p.untyped_storage().data_ptr() for p in module.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = module(x)[0]
    del output
    return sum(kept.values())


@pytest.mark.parametrize("shape", [(16, 100, 320, 320, 1), (4, 100, 40, 160, 2)])
def test_memory_is_at_most_that_of_torch(shape):
    batch, frames, inputs, size, layers = shape
    torch.manual_seed(0)
    plain = torch.nn.LSTM(inputs, size, layers, bidirectional=True)
    options = {"input_size": inputs, "hidden_size": size, "num_layers": layers}
    x = torch.randn(frames, batch, inputs, requires_grad=True)
    expected = kept_bytes(plain, x)
    scheme = (
        {"quantizer": "fix", "bits": 4, "clip": 1.0, "allow_clipping": True},
        INPUT[1],
        WEIGHT[1],
    )
    for quantizers in ((None, None, None), scheme):
        lstm = build({**options, "bidirectional": True}, *quantizers)
        with calibrating(lstm):
            lstm(x[:1])
        assert 0 < kept_bytes(lstm, x) <= 1.3 * expected


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n, works in native.instruction_sets().items() if works])
def test_every_instruction_set(name):
    if os.environ.get("ESPNET_QUANT4_INSTRUCTION_SET") == name:
        return  # this process runs the others' test
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__,
         "-k", "loop and equals or extreme or nan or small_values"],
        env={**os.environ, "ESPNET_QUANT4_INSTRUCTION_SET": name}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-3000:]
