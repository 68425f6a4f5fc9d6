"""QuantLSTM against torch.nn.LSTM in float, and against a per-sequence definition when quantized."""

import copy
import pickle

import pytest
import torch
import torch.utils.checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from espnet_quant4.nn import QuantLSTM
from espnet_quant4.quantizers.calibration import calibrating

WEIGHT = {"quantizer": "max", "bits": 4, "granularity": "gate"}
FULL = {
    "weight_ih": WEIGHT,
    "weight_hh": {"quantizer": "sawb+", "bits": 4, "granularity": "gate"},
    "input": {"quantizer": "fix", "bits": 8, "clip": 3.0},
    "hidden": {"quantizer": "fix", "bits": 4, "clip": 1.0},
}

shapes = st.fixed_dictionaries(
    {
        "input_size": st.integers(1, 9),
        "hidden_size": st.integers(1, 7),
        "num_layers": st.integers(1, 3),
        "bidirectional": st.booleans(),
        "batch_first": st.booleans(),
        "bias": st.booleans(),
    }
)


def make_pair(seed=0, **options):
    torch.manual_seed(seed)
    reference = torch.nn.LSTM(**options)
    quantized = QuantLSTM(**options)
    quantized.load_state_dict(reference.state_dict())
    return reference, quantized


def quantize_fully(lstm, specification=FULL):
    for suffix, _ in lstm.quant_sites():
        lstm.set_quantizers(suffix, specification)
    return lstm


def random_batch(options, frames, batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(frames, batch, options["input_size"], generator=generator)
    lengths = torch.randint(1, frames + 1, (batch,), generator=generator)
    lengths[0] = frames
    size = (
        options["num_layers"] * (2 if options["bidirectional"] else 1),
        batch,
        options["hidden_size"],
    )
    states = tuple(0.5 * torch.randn(size, generator=generator) for _ in range(2))
    if options["batch_first"]:
        x = x.transpose(0, 1).contiguous()
    return x, lengths, states


def gradients(module, outputs):
    generator = torch.Generator().manual_seed(1)
    loss = sum((y * torch.randn(y.shape, generator=generator)).sum() for y in outputs)
    names, parameters = zip(*module.named_parameters(), strict=False)
    return dict(zip(names, torch.autograd.grad(loss, parameters, allow_unused=True), strict=False))


@settings(max_examples=30, deadline=None)
@given(shapes, st.integers(1, 8), st.integers(1, 4), st.booleans(), st.booleans())
def test_float_equals_torch(options, frames, batch, packed, with_states):
    reference, quantized = make_pair(**options)
    x, lengths, states = random_batch(options, frames, batch)
    hx = states if with_states else None
    packed_x = pack_padded_sequence(
        x, lengths, batch_first=options["batch_first"], enforce_sorted=False
    )
    expected, expected_states = reference(packed_x, hx)
    expected, _ = pad_packed_sequence(
        expected, batch_first=options["batch_first"], total_length=frames
    )
    if packed:
        got, got_states = quantized(packed_x, hx)
        got, _ = pad_packed_sequence(got, batch_first=options["batch_first"], total_length=frames)
    else:
        got, got_states = quantized(x, hx, lengths=lengths)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(got_states, expected_states, atol=1e-6, rtol=1e-6)
    expected_gradients = gradients(reference, (expected, *expected_states))
    for name, gradient in gradients(quantized, (got, *got_states)).items():
        torch.testing.assert_close(gradient, expected_gradients[name], atol=1e-6, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(shapes, st.integers(1, 7), st.integers(1, 3))
def test_reference_loop_equals_torch_when_quantization_is_invisible(options, frames, batch):
    """The loop that the quantized path runs, with only an identity put in for the hidden state."""
    reference, quantized = make_pair(**options)
    x, lengths, states = random_batch(options, frames, batch)
    got, got_states = quantized._forward_layers(x, states, lengths, True)
    packed_x = pack_padded_sequence(
        x, lengths, batch_first=options["batch_first"], enforce_sorted=False
    )
    expected, expected_states = reference(packed_x, states)
    expected, _ = pad_packed_sequence(
        expected, batch_first=options["batch_first"], total_length=frames
    )
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(got_states, expected_states, atol=1e-6, rtol=1e-6)
    expected_gradients = gradients(reference, (expected, *expected_states))
    for name, gradient in gradients(quantized, (got, *got_states)).items():
        torch.testing.assert_close(gradient, expected_gradients[name], atol=2e-6, rtol=1e-4)


def round_codes(x, clip, bits):
    levels = 2 ** (bits - 1) - 1
    scale = clip / levels
    return (x.clamp(-clip, clip) / scale).round() * scale


def plain_quantized_lstm(lstm, x, hidden_clip, input_clip):
    """One sequence ``(T, I)`` through a fully quantized LSTM, cell by cell, from the definition."""
    size = lstm.hidden_size
    x = round_codes(x, torch.tensor(input_clip), 8)
    for layer in range(lstm.num_layers):
        floats, codes = [], []
        for name in [f"l{layer}", f"l{layer}_reverse"][: 2 if lstm.bidirectional else 1]:
            tensors = lstm.quantizers[name]
            weight_ih, weight_hh = [
                torch.cat(
                    [
                        round_codes(block, clip, 4)
                        for block, clip in zip(
                            weight.detach().chunk(4), quantizer.clip(weight), strict=False
                        )
                    ]
                )
                for weight, quantizer in [
                    (getattr(lstm, f"weight_ih_{name}"), tensors["weight_ih"]),
                    (getattr(lstm, f"weight_hh_{name}"), tensors["weight_hh"]),
                ]
            ]
            bias = 0.0
            if lstm.bias:
                bias = getattr(lstm, f"bias_ih_{name}") + getattr(lstm, f"bias_hh_{name}")
            hidden, cell = torch.zeros(size), torch.zeros(size)
            steps = range(len(x)) if not name.endswith("_reverse") else reversed(range(len(x)))
            outputs = {}
            for t in steps:
                z = weight_ih @ x[t] + weight_hh @ round_codes(hidden, hidden_clip, 4) + bias
                i, f, g, o = z.split(size)
                cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
                hidden = o.sigmoid() * cell.tanh()
                outputs[t] = hidden
            floats.append(torch.stack([outputs[t] for t in range(len(x))]))
            codes.append(round_codes(floats[-1], hidden_clip, 4))
        x = torch.cat(codes, dim=1)
    return torch.cat(floats, dim=1)


@settings(max_examples=20, deadline=None)
@given(shapes, st.integers(1, 6), st.integers(1, 3))
def test_quantized_equals_definition(options, frames, batch):
    _, lstm = make_pair(**options)
    quantize_fully(lstm).eval()
    x, lengths, _ = random_batch(options, frames, batch)
    with torch.no_grad():
        output, _ = lstm(x, lengths=lengths)
        if not options["batch_first"]:
            output, x = output.transpose(0, 1), x.transpose(0, 1)
        for row in range(batch):
            length = int(lengths[row])
            expected = plain_quantized_lstm(lstm, x[row, :length], torch.tensor(1.0), 3.0)
            # One step of 4 bits is 1/7; a sum that lands on a tie may round either way.
            close = torch.isclose(output[row, :length], expected, atol=1e-5)
            assert close.float().mean() > 0.98
            assert (output[row, length:] == 0).all()


def test_carried_states_equal_one_call():
    _, lstm = make_pair(input_size=5, hidden_size=6, num_layers=2, batch_first=True)
    quantize_fully(lstm).eval()
    x = torch.randn(3, 11, 5)
    with torch.no_grad():
        whole, states = lstm(x)
        first, carried = lstm(x[:, :4])
        second, carried = lstm(x[:, 4:], carried)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, atol=1e-6, rtol=0)
    torch.testing.assert_close(carried, states, atol=1e-6, rtol=0)


def test_packed_input_gives_packed_output():
    _, lstm = make_pair(input_size=4, hidden_size=3, bidirectional=True, batch_first=True)
    quantize_fully(lstm).eval()
    x, lengths = torch.randn(3, 7, 4), torch.tensor([2, 7, 5])
    expected, expected_states = lstm(x, lengths=lengths)
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    output, states = lstm(packed)
    output, output_lengths = pad_packed_sequence(output, batch_first=True)
    assert output_lengths.tolist() == lengths.tolist()
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(states, expected_states)


def test_single_sequence_and_time_major():
    _, lstm = make_pair(input_size=4, hidden_size=3, num_layers=2, bidirectional=True)
    quantize_fully(lstm).eval()
    x = torch.randn(6, 4)
    batched, states = lstm(x.unsqueeze(1))
    single, single_states = lstm(x)
    torch.testing.assert_close(single, batched.squeeze(1))
    assert [s.shape for s in single_states] == [s.squeeze(1).shape for s in states]


def test_padding_changes_nothing():
    _, lstm = make_pair(input_size=4, hidden_size=3, bidirectional=True, batch_first=True)
    specification = {**FULL, "input": {"quantizer": "max", "bits": 4}}
    quantize_fully(lstm, specification)
    x, lengths = torch.randn(2, 9, 4), torch.tensor([9, 4])
    other = x.clone()
    other[1, 4:] = 1e3
    twin = copy.deepcopy(lstm)
    torch.testing.assert_close(lstm(x, lengths=lengths)[0], twin(other, lengths=lengths)[0])
    torch.testing.assert_close(lstm.state_dict(), twin.state_dict())


def test_deeper_layers_read_codes_of_the_layer_below():
    _, lstm = make_pair(input_size=4, hidden_size=3, num_layers=2)
    quantize_fully(lstm)
    assert "input" in lstm.quantizers["l0"] and "input" not in lstm.quantizers["l1"]
    lstm = QuantLSTM(4, 3, 2)
    quantize_fully(lstm, {**FULL, "hidden": None})
    assert "input" in lstm.quantizers["l1"]


def test_float_checkpoints_load_both_ways():
    reference, lstm = make_pair(input_size=4, hidden_size=3, bidirectional=True)
    quantize_fully(lstm)
    lstm.load_state_dict(reference.state_dict(), strict=True)
    plain = QuantLSTM(4, 3, bidirectional=True)
    plain.load_state_dict(lstm.state_dict(), strict=True)
    torch.testing.assert_close(plain.state_dict(), reference.state_dict())
    with pytest.raises(RuntimeError, match="size mismatch"):
        QuantLSTM(4, 2, bidirectional=True).load_state_dict(reference.state_dict())
    incomplete = dict(reference.state_dict())
    del incomplete["bias_hh_l0"]
    with pytest.raises(RuntimeError, match="bias_hh_l0"):
        lstm.load_state_dict(incomplete)


def test_copies_and_pickles_compute_the_same():
    _, lstm = make_pair(input_size=4, hidden_size=3, num_layers=2, bidirectional=True)
    quantize_fully(lstm, {**FULL, "input": {"quantizer": "pact+", "bits": 4}})
    x = torch.randn(5, 2, 4)
    with calibrating(lstm):
        lstm(x)
    expected = lstm(x)[0]
    for twin in (copy.deepcopy(lstm), pickle.loads(pickle.dumps(lstm))):
        torch.testing.assert_close(twin(x)[0], expected)
        assert {n for n, _ in twin.named_parameters()} == {n for n, _ in lstm.named_parameters()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_keeps_quantizers_in_float32(dtype):
    _, lstm = make_pair(input_size=4, hidden_size=8, bidirectional=True, batch_first=True)
    quantize_fully(lstm)
    x = torch.randn(2, 5, 4)
    expected = lstm(x)[0]
    with torch.autocast("cpu", dtype=dtype):
        output, states = lstm(x, lengths=torch.tensor([5, 5]))
    assert states[1].dtype == torch.float32
    # The products are rounded to the narrow type; codes may move by one step of 1/7.
    assert (output.float() - expected).abs().mean() < 0.05
    output.float().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in lstm.parameters())


def test_learned_clips_get_gradients():
    lstm = quantize_fully(
        QuantLSTM(4, 3, 2, bidirectional=True),
        {
            "weight_ih": {"quantizer": "lsq", "bits": 4, "granularity": "gate"},
            "weight_hh": {"quantizer": "pact+", "bits": 4, "granularity": "row"},
            "input": {"quantizer": "pact", "bits": 4},
            "hidden": {"quantizer": "pact+", "bits": 4},
        },
    )
    x = 3 * torch.randn(6, 2, 4)
    with calibrating(lstm):
        lstm(x)
    lstm(x)[0].square().sum().backward()
    clips = {n: p for n, p in lstm.named_parameters() if n.endswith("clip_value")}
    assert len(clips) == 4 * 3 + 1
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in clips.values())


def test_dropout_only_in_training():
    lstm = quantize_fully(QuantLSTM(4, 16, 2, dropout=0.5))
    x = torch.randn(6, 2, 4)
    assert not torch.equal(lstm(x)[0], lstm(x)[0])
    lstm.eval()
    assert torch.equal(lstm(x)[0], lstm(x)[0])


def test_nan_stays_visible():
    lstm = quantize_fully(QuantLSTM(4, 3))
    x = torch.randn(5, 2, 4)
    x[2, 1, 0] = float("nan")
    output, _ = lstm(x)
    assert output[2:, 1].isnan().all() and output[:, 0].isfinite().all()


@pytest.mark.parametrize("lengths", [[0, 3], [3, 6]])
def test_wrong_lengths_are_named(lengths):
    for lstm in (
        QuantLSTM(4, 3, batch_first=True),
        quantize_fully(QuantLSTM(4, 3, batch_first=True)),
    ):
        with pytest.raises(ValueError, match=r"batch positions \[[01]\]; valid are 1 to 5"):
            lstm(torch.randn(2, 5, 4), lengths=torch.tensor(lengths))


def test_wrong_sizes_fail_as_in_torch():
    for lstm in (QuantLSTM(4, 3), quantize_fully(QuantLSTM(4, 3))):
        with pytest.raises(RuntimeError, match="input.size"):
            lstm(torch.randn(5, 2, 6))
        with pytest.raises(RuntimeError, match="hidden"):
            lstm(torch.randn(5, 2, 4), (torch.zeros(1, 3, 3), torch.zeros(1, 3, 3)))
        with pytest.raises(RuntimeError, match="greater than 0|larger than 0"):
            lstm(torch.randn(0, 2, 4))
    with pytest.raises(ValueError, match="proj_size"):
        QuantLSTM(4, 3, proj_size=2)


def test_uncalibrated_evaluation_is_refused():
    lstm = quantize_fully(QuantLSTM(4, 3), {**FULL, "input": {"quantizer": "pact+", "bits": 4}})
    with pytest.raises(RuntimeError, match="Calibrate"):
        lstm.eval()(torch.randn(5, 2, 4))


def test_gradient_checkpointing_changes_nothing():
    lstm = quantize_fully(QuantLSTM(4, 3, 2, bidirectional=True, batch_first=True))
    x, lengths = torch.randn(2, 6, 4, requires_grad=True), torch.tensor([6, 4])

    def run(x):
        return lstm(x, lengths=lengths)[0]

    wanted = [x, *lstm.parameters()]
    expected = torch.autograd.grad(run(x).square().sum(), wanted)
    again = torch.utils.checkpoint.checkpoint(run, x, use_reentrant=False)
    torch.testing.assert_close(torch.autograd.grad(again.square().sum(), wanted), expected)
