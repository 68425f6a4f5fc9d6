"""Values and gradients against ``fms-model-optimizer``, where it has the same quantizer.

Where docs/quantizers.md says that it deviates, the test asserts that ours does not.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quantizers.fms_oracle import load

from espnet_quant4.quantizers import build

fms = load()

tensors = st.builds(
    lambda seed, rows, columns, spread: (
        spread * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    ),
    st.integers(0, 10_000),
    st.integers(2, 12),
    st.integers(16, 64),
    st.sampled_from([0.05, 1.0, 7.0]),
)


def gradients_of(quantize, x, *parameters):
    x = x.clone().requires_grad_()
    y = quantize(x)
    weights = torch.linspace(-1, 2, y.numel()).view_as(y)
    return y, torch.autograd.grad((y * weights).sum(), [x, *parameters])


def assert_same(ours, theirs, x, clip, bits):
    """Compare values but where x sits on a tie, which different roundings may settle either way."""
    steps = x / clip * (2 ** (bits - 1) - 1)
    decided = ((steps - steps.floor()) - 0.5).abs() > 1e-3
    torch.testing.assert_close(ours[decided], theirs[decided], atol=2e-6 * clip, rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(tensors, st.sampled_from([2, 4, 8]), st.booleans())
def test_sawb(x, bits, passes_gradient):
    theirs = fms.SAWB(bits, align_zero=True, clipSTE=passes_gradient)
    ours = build({"quantizer": "sawb+" if passes_gradient else "sawb", "bits": bits}, "weight")
    clip = ours.clip(x).item()
    y, (gradient,) = gradients_of(ours, x)
    expected, (expected_gradient,) = gradients_of(theirs, x)
    if not x.abs().mean() < theirs.clip_val < x.abs().max():
        return  # ours bounds the formula there
    assert clip == pytest.approx(float(theirs.clip_val), rel=1e-4)
    assert_same(y, expected, x, clip, bits)
    outside_undecided = ((x.abs() - clip).abs() < 1e-4 * clip).any()
    if not outside_undecided:
        torch.testing.assert_close(gradient, expected_gradient)


def test_sawb_clip_does_not_lag_in_evaluation():
    ours = build({"quantizer": "sawb+", "bits": 4}, "weight").eval()
    theirs = fms.SAWB(4, align_zero=True).train()
    x = torch.randn(20, 30)
    theirs(x)
    theirs.eval()
    assert ours.clip(2 * x).item() == pytest.approx(2 * ours.clip(x).item(), rel=1e-5)
    theirs(2 * x)
    assert float(theirs.clip_val) == pytest.approx(ours.clip(x).item(), rel=1e-4)


def learned(name, bits, clip):
    quantizer = build({"quantizer": name, "bits": bits}, "activation")
    with torch.no_grad():
        quantizer.clip_value.fill_(clip)
        quantizer.calibrated.fill_(1)
    return quantizer


@settings(max_examples=40, deadline=None)
@given(tensors, st.integers(2, 8), st.floats(0.3, 3.0))
def test_pact_plus(x, bits, clip):
    ours = learned("pact+", bits, clip)
    theirs = fms.PACTplusSym(bits, clip, intg_zp=True)
    y, (gradient, clip_gradient) = gradients_of(ours, x, ours.clip_value)
    expected, (expected_gradient, expected_clip) = gradients_of(theirs, x, theirs.clip_val)
    assert_same(y, expected, x, clip, bits)
    torch.testing.assert_close(gradient, expected_gradient)
    steps = x / clip * ours.max_code
    if (((steps - steps.floor()) - 0.5).abs() > 1e-3).all():
        torch.testing.assert_close(clip_gradient, expected_clip, atol=1e-3, rtol=1e-3)


@settings(max_examples=40, deadline=None)
@given(tensors, st.integers(2, 8), st.floats(0.3, 3.0))
def test_pact(x, bits, clip):
    """Theirs has the wrong sign of the clip's gradient at x <= -clip; all else agrees."""
    ours = learned("pact", bits, clip)
    theirs = fms.PACT2Sym(bits, clip)
    y, (gradient, clip_gradient) = gradients_of(ours, x, ours.clip_value)
    expected, (expected_gradient, _) = gradients_of(theirs, x, theirs.clip_val)
    assert_same(y, expected, x, clip, bits)
    torch.testing.assert_close(gradient, expected_gradient)
    weights = torch.linspace(-1, 2, x.numel()).view_as(x)
    by_hand = (weights * ((x >= clip).float() - (x <= -clip).float())).sum().reshape(1)
    torch.testing.assert_close(clip_gradient, by_hand, atol=1e-4, rtol=1e-4)


def test_pact_emits_no_code_beyond_its_bits():
    x = torch.tensor([-1.0, 1.0])
    assert learned("pact", 4, 1.0).codes(x).tolist() == [-7, 7]
    theirs = fms.PACT2(4, -1.0, 1.0, dequantize=False)
    assert float(theirs(x).abs().max()) > 7


@settings(max_examples=40, deadline=None)
@given(tensors, st.integers(2, 8), st.floats(0.3, 3.0))
def test_lsq(x, bits, clip):
    """Theirs is for inputs of 0 and above, where its 2^(bits-1)-1 steps are ours.

    Its gradient scale is not the paper's (the sum of the sizes where the paper has the product, a
    constant 3 where it has the largest code), so the clip's gradients are compared without either.
    """
    x = x.abs()
    ours = learned("lsq", bits, clip)
    theirs = fms.LSQQuantization(bits - 1, clip)
    y, (gradient, clip_gradient) = gradients_of(ours, x, ours.clip_value)
    expected, (expected_gradient, expected_clip) = gradients_of(theirs, x, theirs.clip_val)
    assert_same(y, expected, x, clip, bits)
    torch.testing.assert_close(gradient, expected_gradient)
    steps = x / clip * ours.max_code
    if (((steps - steps.floor()) - 0.5).abs() > 1e-3).all():
        clip_gradient = clip_gradient / (ours.max_code**2 / (x.numel() * ours.max_code) ** 0.5)
        expected_clip = expected_clip * (3 * sum(x.shape)) ** 0.5
        torch.testing.assert_close(clip_gradient, expected_clip, atol=1e-3, rtol=1e-3)


@settings(max_examples=40, deadline=None)
@given(tensors, st.integers(2, 8))
def test_max(x, bits):
    ours = build({"quantizer": "max", "bits": bits}, "weight")
    theirs = fms.Qmax(bits, align_zero=True)
    y, (gradient,) = gradients_of(ours, x)
    expected, (expected_gradient,) = gradients_of(theirs, x)
    assert_same(y, expected, x, float(x.abs().max()), bits)
    torch.testing.assert_close(gradient, expected_gradient)
