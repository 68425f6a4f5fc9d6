"""The recurrence used in training against its definition."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_quant4.kernels.recurrence import lstm_recurrence_for_training
from espnet_quant4.kernels.reference import lstm_recurrence, reverse_padded


def identity(hidden):
    return hidden


class RoundStraightThrough(torch.autograd.Function):
    """Four-bit rounding with a clip that has a gradient too."""

    @staticmethod
    def forward(ctx, hidden, clip):
        ctx.save_for_backward(hidden, clip)
        return (hidden.clamp(-clip, clip) / clip * 7).round() * clip / 7

    @staticmethod
    def backward(ctx, gradient):
        hidden, clip = ctx.saved_tensors
        inside = hidden.abs() < clip
        return gradient * inside, (gradient * ~inside * hidden.sign()).sum()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 7), st.integers(1, 2), st.integers(1, 4), st.integers(1, 5), st.booleans())
def test_equals_reference(frames, directions, batch, size, quantized):
    torch.manual_seed(frames)
    arguments = [
        torch.randn(frames, directions, batch, 4 * size),
        torch.randn(directions, 4 * size, size),
        torch.randn(directions, batch, size),
        torch.randn(directions, batch, size),
        torch.tensor(0.4),
    ]
    results = []
    for recurrence in (lstm_recurrence, lstm_recurrence_for_training):
        leaves = [a.clone().requires_grad_() for a in arguments]
        *inputs, clip = leaves
        rounded = (
            (lambda h, clip=clip: RoundStraightThrough.apply(h, clip)) if quantized else identity
        )
        outputs = recurrence(*inputs, rounded)
        loss = sum((y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum() for y in outputs)
        used = leaves if quantized else inputs
        results.append((outputs, torch.autograd.grad(loss, used)))
    (expected, expected_gradients), (got, gradients) = results
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(gradients, expected_gradients, atol=1e-4, rtol=1e-4)


def test_reference_gradient_by_finite_differences():
    torch.manual_seed(0)
    arguments = (
        torch.randn(3, 2, 2, 8, dtype=torch.float64, requires_grad=True),
        torch.randn(2, 8, 2, dtype=torch.float64, requires_grad=True),
        torch.randn(2, 2, 2, dtype=torch.float64, requires_grad=True),
        torch.randn(2, 2, 2, dtype=torch.float64, requires_grad=True),
    )
    assert torch.autograd.gradcheck(lambda *a: lstm_recurrence(*a, identity), arguments)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.lists(st.integers(0, 6), min_size=1, max_size=4))
def test_reverse_padded(frames, lengths):
    lengths = [min(length, frames) for length in lengths]
    x = torch.arange(frames * len(lengths)).view(frames, len(lengths), 1)
    reversed_x = reverse_padded(x, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        assert reversed_x[:length, row, 0].tolist() == x[:length, row, 0].tolist()[::-1]
        assert reversed_x[length:, row].tolist() == x[length:, row].tolist()
    assert torch.equal(reverse_padded(reversed_x, torch.tensor(lengths)), x)
