"""The C++ LSTM against its definition in PyTorch, on every instruction set."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_quant4.kernels import int4_reference, native
from espnet_quant4.kernels.int4_reference import DirectionCodes

WORKING = [i for i, works in enumerate(native.instruction_sets().values()) if works]


def draw_codes(rows: int, columns: int, largest: int) -> torch.Tensor:
    return torch.randint(-largest, largest + 1, (rows, columns)).to(torch.int8)


def random_layers(
    layers: int, directions: int, inputs: int, hidden: int, weight_max: int, hidden_max: int,
    own_scales: bool,
) -> list[list[DirectionCodes]]:  # fmt: skip
    """Layers whose gates are of the order of 1."""
    clips = [[0.5 + torch.rand(()).item() if own_scales else 1.0 for _ in range(directions)]
             for _ in range(layers)]  # fmt: skip
    built = []
    for layer in range(layers):
        width = inputs if layer == 0 else directions * hidden
        parts = directions if layer and own_scales else 1
        built.append(
            [
                DirectionCodes(
                    weight_ih=draw_codes(4 * hidden, width, weight_max),
                    weight_ih_max=weight_max,
                    scale_ih=torch.rand(parts, 4 * hidden) / (weight_max * hidden_max * width**0.5),
                    weight_hh=draw_codes(4 * hidden, hidden, weight_max),
                    weight_hh_max=weight_max,
                    scale_hh=torch.rand(4 * hidden) / (weight_max * hidden_max * hidden**0.5),
                    bias=torch.randn(4 * hidden),
                    hidden_clip=clips[layer][d],
                    hidden_max=hidden_max,
                )
                for d in range(directions)
            ]
        )
    return built


def pack(layers: list[list[DirectionCodes]], inputs: int, number: int) -> native.NativeLSTM:
    return native.NativeLSTM.from_layers(layers, inputs, number)


sizes = st.one_of(st.sampled_from([1, 15, 16, 17, 32, 48]), st.integers(1, 40))


@settings(deadline=None, max_examples=120)
@given(
    number=st.sampled_from(WORKING), layers=st.integers(1, 3), directions=st.integers(1, 2),
    inputs=sizes, hidden=sizes, frames=st.integers(1, 12), batch=st.integers(0, 6),
    weight_max=st.sampled_from([1, 3, 7, 127]), hidden_max=st.sampled_from([3, 7, 127]),
    input_max=st.sampled_from([7, 127]), own_scales=st.booleans(), ragged=st.booleans(),
    threads=st.integers(1, 5), seed=st.integers(0, 2**16),
)  # fmt: skip
def test_equals_the_definition(
    number, layers, directions, inputs, hidden, frames, batch, weight_max, hidden_max, input_max,
    own_scales, ragged, threads, seed,
):  # fmt: skip
    torch.manual_seed(seed)
    built = random_layers(layers, directions, inputs, hidden, weight_max, hidden_max, own_scales)
    x = torch.randn(frames, batch, inputs)
    lengths = torch.randint(1, frames + 1, (batch,)) if ragged else None
    states = [torch.randn(layers * directions, batch, hidden) for _ in range(2)]
    expected, hidden_state, cell_state, expected_codes = int4_reference.lstm(
        built, x, 2.0, input_max, *states, lengths
    ) if batch else (x.new_zeros(frames, 0, directions * hidden), *states,
                     torch.zeros(layers, frames, 0, directions * hidden, dtype=torch.int8))  # fmt: skip
    out = torch.zeros(frames, batch, directions * hidden)
    codes = torch.zeros(layers, frames, batch, directions * hidden, dtype=torch.int8)
    found = [state.clone() for state in states]
    pack(built, inputs, number).run(x, 2.0, input_max, *found, out, lengths, codes, threads)
    if torch.equal(codes, expected_codes):
        torch.testing.assert_close(out, expected, rtol=0, atol=2e-6)
        torch.testing.assert_close(found[0], hidden_state, rtol=0, atol=2e-6)
        torch.testing.assert_close(found[1], cell_state, rtol=1e-6, atol=4e-6)
    else:
        # A hidden state so near a tie that rounding decides; from there on the two go apart.
        first = (codes != expected_codes).nonzero()
        assert len(first) < 0.02 * codes.numel() + 10
        assert_first_difference_is_a_tie(
            built, x, input_max, states, lengths, codes, expected_codes
        )


def assert_first_difference_is_a_tie(built, x, input_max, states, lengths, codes, expected):
    """The lowest layer that differs, at its first frame of each direction, sits at a tie."""
    layer = int((codes != expected).flatten(1).any(1).nonzero()[0])
    above = [state[: (layer + 1) * len(built[0])] for state in states]
    floats = int4_reference.lstm(built[: layer + 1], x, 2.0, input_max, *above, lengths)[0]
    hidden = built[0][0].weight_hh.size(1)
    for d, entry in enumerate(built[layer]):
        here = slice(d * hidden, (d + 1) * hidden)
        differ = (codes[layer] != expected[layer])[:, :, here]
        for b in range(x.size(1)):
            frames = differ[:, b].any(1).nonzero().flatten()
            if len(frames):
                frame = frames[-1 if d else 0]
                units = differ[frame, b]
                levels = floats[frame, b, here][units] / (entry.hidden_clip / entry.hidden_max)
                assert ((levels - levels.floor() - 0.5).abs() < 1e-4).all()


@pytest.mark.parametrize("number", WORKING)
@pytest.mark.parametrize("directions", [1, 2])
def test_threads_change_nothing(number, directions):
    torch.manual_seed(1)
    built = random_layers(2, directions, 80, 160, 7, 7, False)
    lstm = pack(built, 80, number)
    x, lengths = torch.randn(40, 3, 80), torch.tensor([40, 7, 22])
    results = []
    for threads in (1, 2, 3, 7):
        out = torch.zeros(40, 3, directions * 160)
        states = [torch.zeros(2 * directions, 3, 160) for _ in range(2)]
        lstm.run(x, 3.0, 127, *states, out, lengths, None, threads)
        results.append(out)
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("number", WORKING)
def test_strided_input_and_output(number):
    torch.manual_seed(2)
    lstm = pack(random_layers(1, 1, 20, 24, 7, 7, False), 20, number)
    x = torch.randn(4, 9, 20)
    outs = []
    for batch_first in (False, True):
        out = torch.zeros(4, 9, 24) if batch_first else torch.zeros(9, 4, 24)
        by_time = out.transpose(0, 1) if batch_first else out
        given_x = x.transpose(0, 1) if batch_first else x.transpose(0, 1).contiguous()
        states = [torch.zeros(1, 4, 24) for _ in range(2)]
        lstm.run(given_x, 3.0, 7, *states, by_time)
        outs.append(by_time)
    assert torch.equal(*outs)


def test_bad_calls_are_refused():
    torch.manual_seed(3)
    lstm = pack(random_layers(1, 1, 6, 8, 7, 7, False), 6, WORKING[0])
    states = [torch.zeros(1, 2, 8) for _ in range(2)]
    out = torch.zeros(5, 2, 8)
    x = torch.randn(5, 2, 6)
    for lengths in ([0, 5], [1, 6]):
        with pytest.raises(ValueError, match="out of range"):
            lstm.run(x, 1.0, 7, *states, out, torch.tensor(lengths))
    with pytest.raises(ValueError, match="NaN"):
        lstm.run(x.fill_(float("nan")), 1.0, 7, *states, out)
    with pytest.raises(ValueError, match="out: shape"):
        lstm.run(torch.zeros(5, 2, 6), 1.0, 7, *states, out[:4])
    with pytest.raises(TypeError, match="lengths"):
        lstm.run(torch.zeros(5, 2, 6), 1.0, 7, *states, out, torch.tensor([1, 2]).int())
    with pytest.raises(ValueError, match="out of range"):
        native.NativeLSTM(1, 1, 6, 8).run(torch.zeros(5, 2, 6), 1.0, 7, *states, out)  # never set
    with pytest.raises(ValueError, match="directions 3"):
        native.NativeLSTM(1, 3, 6, 8)
