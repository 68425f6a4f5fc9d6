"""One-pass fake quantization against its definition in PyTorch's operations."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_quant4.kernels import fake_quantize as native
from espnet_quant4.kernels.gradient_rules import GradientRule
from espnet_quant4.kernels.workspace import workspace
from espnet_quant4.quantizers.rounding import fake_quantize, fake_quantize_reference

RULES = [rule for rule in GradientRule if rule != GradientRule.NONE]


def draw(rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, columns, generator=generator)
    # Values on the clip and between two levels decide about masks and ties.
    x.view(-1)[::7] = 0.5
    x.view(-1)[3::11] = -0.5 / 14
    return x


def run(function, x, clip, max_code, rule, gradient):
    x = x.clone().requires_grad_()
    if isinstance(clip, torch.Tensor):
        clip = clip.clone().requires_grad_()
    rounded = function(x, clip, max_code, rule)
    rounded.backward(gradient)
    return rounded.detach(), x.grad, clip.grad if isinstance(clip, torch.Tensor) else None


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 200),
    kind=st.sampled_from(["number", "one", "rows"]),
    clip=st.sampled_from([0.5, 0.1, 1.3, 3.0]),
    bits=st.integers(2, 8),
    rule=st.sampled_from(RULES),
    seed=st.integers(0, 99),
)
def test_equals_the_definition(rows, columns, kind, clip, bits, rule, seed):
    is_learned = rule in (GradientRule.LEARNED, GradientRule.LEARNED_WITH_RESIDUAL)
    if kind == "number" and is_learned:
        kind = "one"
    x = draw(rows, columns, seed)
    clips = {
        "number": clip,
        "one": torch.tensor([clip]),
        "rows": torch.linspace(clip, 2 * clip, rows).unsqueeze(1),
    }[kind]
    gradient = torch.randn(x.shape)
    ours = run(native.fake_quantize, x, clips, 2 ** (bits - 1) - 1, rule, gradient)
    wanted = run(fake_quantize_reference, x, clips, 2 ** (bits - 1) - 1, rule, gradient)
    assert torch.equal(ours[0], wanted[0])
    assert torch.equal(ours[1], wanted[1])
    if is_learned:
        torch.testing.assert_close(ours[2], wanted[2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rule", RULES)
def test_many_chunks_and_threads_change_nothing(rule):
    x, gradient = torch.randn(3, 100_001), torch.randn(3, 100_001)
    clips = torch.tensor([0.4, 1.0, 2.0]).unsqueeze(1)
    results = []
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(run(native.fake_quantize, x, clips, 7, rule, gradient))
    torch.set_num_threads(before)
    wanted = run(fake_quantize_reference, x, clips, 7, rule, gradient)
    for rounded, gradient_x, gradient_clip in results:
        assert torch.equal(rounded, wanted[0]) and torch.equal(gradient_x, wanted[1])
        if wanted[2] is not None:
            assert torch.equal(gradient_clip, results[0][2])
            torch.testing.assert_close(gradient_clip, wanted[2], rtol=1e-3, atol=1e-2)


def test_nan_stays():
    x = torch.randn(50, 50)
    x[3, 4] = float("nan")
    for rule in RULES:
        rounded = fake_quantize(x, torch.tensor([1.0]), 7, rule)
        assert rounded.isnan().nonzero().tolist() == [[3, 4]]


def test_other_devices_precisions_and_sizes_take_the_definition():
    assert native.suits_native(torch.zeros(40, 40))
    assert not native.suits_native(torch.zeros(40, 40, dtype=torch.float64))
    assert not native.suits_native(torch.zeros(40, 40, device="meta"))
    assert not native.suits_native(torch.zeros(4))
    assert not native.suits_native(torch.zeros(40, 40), torch.ones(1, 40))


def test_transposed_input_keeps_its_values():
    x = torch.randn(60, 40).t()
    clip = torch.tensor([0.7])
    ours = native.fake_quantize(x, clip, 7, GradientRule.CLIPPED)
    assert torch.equal(ours, fake_quantize_reference(x, clip, 7, GradientRule.CLIPPED))


@given(groups=st.integers(1, 6), elements=st.integers(1, 3000), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_moments(groups, elements, seed):
    x = draw(groups, elements, seed)
    mean, square, largest = native.moments(x)
    torch.testing.assert_close(mean, x.abs().mean(1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(square, x.square().mean(1), rtol=1e-5, atol=1e-6)
    assert torch.equal(largest, x.abs().amax(1))


def test_workspace_is_kept_and_grows():
    first = workspace("test", (3, 4))
    assert workspace("test", (2, 5)).data_ptr() == first.data_ptr()
    assert workspace("test", (100, 100)).shape == (100, 100)
