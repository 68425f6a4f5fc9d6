"""What the report says of a tensor, against numbers worked out by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_transducer import SCHEME, build_transducer, random_batch

from espnet_quant4.quantizers import Quantizer, build
from espnet_quant4.quantizers.calibration import calibrating
from espnet_quant4.report.experiment.histogram import SignedHistogram
from espnet_quant4.report.experiment.measures import Measure, worst_first
from espnet_quant4.report.experiment.tensors import measure_weight, observing, unset_activations


def fixed(bits=3, clip=3.0, **options):
    return build({"quantizer": "fix", "bits": bits, "clip": clip, **options}, role="weight")


def test_measures_of_six_values_by_hand():
    # Clip 3 at 3 bits: codes -3..3 in steps of 1.
    weight = torch.tensor([[0.0, 1.0, -1.25], [2.5, 3.5, -4.0]])
    measures = measure_weight("w", weight, fixed())
    # 2.5 rounds to the even 2; 3.5 and -4 are clipped.
    noise = 0.0 + 0.0 + 0.25**2 + 0.5**2 + 0.5**2 + 1.0**2
    signal = 1.0 + 1.25**2 + 2.5**2 + 3.5**2 + 16.0
    assert measures.sqnr == pytest.approx(10 * math.log10(signal / noise))
    assert measures.clipped == pytest.approx(2 / 6)
    assert measures.codes_used == pytest.approx(6 / 7)  # all but -2
    assert (measures.quantizer, measures.bits, measures.clips) == ("fix", 3, (3.0, 3.0))
    assert (measures.values, sum(measures.counts)) == (6, 6)


def test_each_group_is_held_against_its_own_clip():
    quantizer = build({"quantizer": "max", "bits": 2}, role="weight", groups=2)
    measures = measure_weight("w", torch.tensor([[1.0, -1.0], [100.0, 0.0]]), quantizer)
    assert measures.clips == (1.0, 100.0)
    assert math.isinf(measures.sqnr) and measures.clipped == 0 and measures.codes_used == 1
    assert measures.in_units_of_clip
    assert measures.edges[0] <= -1 < 1 <= measures.edges[-1] < 1.1


def test_zeros_have_no_ratio_and_come_last():
    zeros = measure_weight("zeros", torch.zeros(2, 3), fixed())
    assert math.isnan(zeros.sqnr) and zeros.codes_used == pytest.approx(1 / 7)
    good = measure_weight("good", torch.ones(2, 3), fixed())
    bad = measure_weight("bad", torch.full((2, 3), 9.0), fixed())
    assert [t.name for t in worst_first([zeros, good, bad])] == ["bad", "good", "zeros"]


def test_what_is_not_finite_is_counted_apart():
    measure = Measure("x", fixed())
    measure.add_activation(torch.tensor([1.0, math.nan, math.inf, 2.0]))
    measure.add_activation(torch.tensor([]))
    result = measure.result()
    assert (result.values, result.passed_over) == (2, 2)


def test_batches_add_up():
    torch.manual_seed(0)
    values = torch.randn(1000)
    once, often = Measure("x", fixed(4, 2.0)), Measure("x", fixed(4, 2.0))
    once.add_activation(values)
    for part in values.split(7):
        often.add_activation(part)
    one, other = once.result(), often.result()
    assert one.sqnr == pytest.approx(other.sqnr)
    assert (one.clipped, one.codes_used) == (other.clipped, other.codes_used)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), name=st.sampled_from(["max", "mse", "percentile"]))
def test_the_ratio_rises_with_the_bits(seed, name):
    torch.manual_seed(seed)
    weight = torch.rand(64, 64) * 2 - 1
    ratios = [
        measure_weight("w", weight, build({"quantizer": name, "bits": bits}, role="weight")).sqnr
        # Of 8 bits the noise of a clip that cuts values off does not fall any more.
        for bits in range(2, 9 if name != "percentile" else 6)
    ]
    assert ratios == sorted(ratios)
    # A uniform weight fills the range of `max`: each level less is about 6 dB less.
    if name == "max":
        assert ratios[-1] - ratios[-2] == pytest.approx(20 * math.log10(127 / 63), abs=0.5)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50), st.integers(1, 9))
def test_no_value_leaves_the_histogram(values, at_once):
    histogram = SignedHistogram()
    for part in torch.tensor(values).split(at_once):
        histogram.add(part)
    edges, counts = histogram.shown()
    assert sum(counts) == len(values)
    assert len(edges) == len(counts) + 1 <= 129
    assert edges[0] <= min(values) and max(values) <= edges[-1]


def test_a_histogram_keeps_sides_and_places():
    histogram = SignedHistogram()
    histogram.add(torch.tensor([0.5]))
    histogram.add(torch.tensor([-8.0, 0.5, 7.9]))
    edges, counts = histogram.shown()
    found = [(low, high, n) for low, high, n in zip(edges, edges[1:], counts, strict=False) if n]
    assert [n for *_, n in found] == [1, 2, 1]
    assert found[0][0] == -8.0 and found[1][0] <= 0.5 < found[1][1] and found[2][1] == 8.0


@pytest.fixture
def calibrated():
    model = build_transducer(SCHEME).eval()
    with calibrating(model), torch.no_grad():
        model(**random_batch())
    return model


def test_activations_are_seen_and_nothing_changes(calibrated):
    with torch.no_grad():
        # The first evaluation sets the clips of `lsq` weights, whatever observes it.
        wanted = calibrated(**random_batch(1))[0]
        before = {key: value.clone() for key, value in calibrated.state_dict().items()}
        with observing(calibrated) as measures:
            shown = calibrated(**random_batch(1))[0]
        again = calibrated(**random_batch(1))[0]
    assert torch.allclose(wanted, shown, atol=1e-5) and torch.equal(wanted, again)
    assert all(torch.equal(before[k], v) for k, v in calibrated.state_dict().items())
    names = {n for n, m in calibrated.named_modules() if isinstance(m, Quantizer)}
    names = {n.replace(".quantizers", "") for n in names if n.endswith(("input", "hidden"))}
    assert measures.keys() == names
    results = {name: measure.result() for name, measure in measures.items()}
    assert all(r.values and r.sqnr > 0 for r in results.values())
    # Frames are stacked in twos: 12 + 10 + 7 are left of 24, 20 and 13, of 16 numbers; 6 hidden units.
    assert results["encoder.enc.0.nbrnn.l0.input"].values == 29 * 16
    assert results["encoder.enc.0.nbrnn.l1_reverse.hidden"].values == 29 * 6


def test_the_measure_is_that_of_the_values_before_quantization(calibrated):
    lstm = calibrated.encoder.enc[0].nbrnn
    quantizer = lstm.quantizer("l0", "input")
    x = torch.randn(5, 2, lstm.input_size)
    with torch.no_grad(), observing(calibrated) as measures:
        lstm(x)
    noise = (x - quantizer.quantize(x)).detach().double().square().sum()
    wanted = 10 * math.log10(float(x.double().square().sum() / noise))
    assert measures["encoder.enc.0.nbrnn.l0.input"].result().sqnr == pytest.approx(wanted)


def test_unset_clips_are_named():
    unset = unset_activations(build_transducer(SCHEME))
    assert "encoder.enc.0.nbrnn.l0.input" in unset
    assert "encoder.enc.0.nbrnn.l0.hidden" not in unset  # a constant
