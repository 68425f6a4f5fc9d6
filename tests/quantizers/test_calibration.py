"""Clips from data, against brute force, and over two processes."""

import warnings

import numpy
import pytest
import torch
import torch.distributed
import torch.multiprocessing
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_quant4.quantizers import build, calibration
from espnet_quant4.quantizers.calibration import calibrating
from espnet_quant4.quantizers.clip_search import Histogram, LinearHistogram


def squared_error(x, clip, max_code):
    scale = clip / max_code
    return float((((x.clamp(-clip, clip) / scale).round() * scale - x) ** 2).sum())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 8), st.sampled_from(["normal", "laplace", "uniform"]))
def test_least_squared_error_is_close_to_brute_force(seed, bits, kind):
    generator = numpy.random.default_rng(seed)
    x = torch.tensor(getattr(generator, kind)(size=3000), dtype=torch.float32)
    max_code = 2 ** (bits - 1) - 1
    histogram = Histogram(1)
    for piece in x.abs().reshape(1, -1).split(1000, dim=1):
        histogram.add(piece)
    found = float(histogram.least_squared_error(max_code))
    candidates = torch.linspace(0.01, 1.0, 500) * x.abs().max()
    best = min(squared_error(x, float(c), max_code) for c in candidates)
    assert squared_error(x, found, max_code) <= 1.05 * best


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(50, 99))
def test_percentile_is_close_to_numpys(seed, percentile):
    x = torch.randn(4000, generator=torch.Generator().manual_seed(seed))
    histogram = Histogram(1)
    # The range grows with the data: the small values come first.
    for piece in x.abs().sort().values.reshape(1, -1).split(1000, dim=1):
        histogram.add(piece)
    expected = float(numpy.percentile(x.abs().numpy(), percentile))
    assert float(histogram.percentile(percentile)) == pytest.approx(expected, abs=0.02)


def test_histogram_does_not_drift_when_its_range_grows_slowly():
    histogram = Histogram(2)
    uniform = torch.linspace(0, 1, 10_000)
    histogram.add(torch.stack([uniform, 0.01 * uniform]))
    for step in range(300):
        histogram.add(torch.tensor([[1 + 0.003 * step], [0.01]]))
    median = histogram.percentile(50.0)
    # 300 values more, at the top
    assert median[0].item() == pytest.approx(0.515, abs=0.002)
    assert median[1].item() == pytest.approx(0.00515, abs=0.00002)
    assert histogram.counts.sum().item() == 2 * 10_300


def test_least_squared_error_of_many_groups_is_that_of_each():
    x = torch.randn(300, 50, generator=torch.Generator().manual_seed(0)).abs()
    x[7] = 0.0
    for max_code in (1, 7, 127):
        whole = Histogram(300)
        whole.add(x)
        found = whole.least_squared_error(max_code)
        for row in (0, 7, 299):
            single = Histogram(1)
            single.add(x[row : row + 1])
            assert found[row].item() == single.least_squared_error(max_code).item()


def extremes():
    """Return data by name: what calibration may meet, and what a clip has to survive."""
    normal = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    generator = numpy.random.default_rng(0)
    return {
        "normal": normal,
        "uniform": torch.tensor(generator.uniform(size=20_000)),
        "laplace": torch.tensor(generator.laplace(size=20_000)),
        "outlier of 1e4": torch.cat([normal, torch.tensor([1e4])]),
        "outlier of 1e6": torch.cat([normal, torch.tensor([-1e6])]),
        "many, and outliers": torch.cat([normal.repeat(20), torch.tensor([3e2, -3e2])]),
        "denormal at first": torch.cat([torch.full((3000,), 1e-42), normal]),
        "denormal alone": normal * 1e-41,
        "small": normal * 1e-30,
        "large": normal * 1e37,
        "constant": torch.full((2000,), -3.0),
        "mostly zeros": torch.cat([torch.zeros(20_000), normal]),
        "of wide range": normal.double() * torch.logspace(-30, 30, 20_000, dtype=torch.float64),
    }


@pytest.mark.parametrize("order", ["as they come", "reversed"])
@pytest.mark.parametrize("name", extremes())
def test_clips_are_close_to_the_exact_ones(name, order):
    stored = extremes()[name]
    x = stored.double()
    pieces = list(stored.abs().reshape(1, -1).split(1000, dim=1))
    histogram = Histogram(1)
    for piece in pieces if order == "as they come" else reversed(pieces):
        histogram.add(piece)
    largest = float(x.abs().max())
    assert histogram.clip("max", 7, 0).item() == largest
    for percentile in (60.0, 99.0, 99.9):
        rank = x.abs().kthvalue(round(percentile / 100 * len(x))).values.item()
        assert histogram.percentile(percentile).item() == pytest.approx(rank, rel=2e-3)
    unit = x / largest
    for max_code in (1, 7, 127):
        found = histogram.least_squared_error(max_code).item() / largest
        candidates = [*numpy.linspace(0.005, 1, 200), *numpy.geomspace(1e-6, 0.005, 60)]
        best = min(squared_error(unit, c, max_code) for c in candidates)
        assert 0 < found <= 1
        assert squared_error(unit, found, max_code) <= 1.01 * best + 1e-12


def test_order_of_batches_does_not_matter():
    batches = [1e-42 * torch.rand(1, 50), torch.randn(1, 500).abs(), torch.zeros(1, 9),
               torch.tensor([[1e6, float("nan")]]), 1e-6 * torch.rand(1, 80)]  # fmt: skip
    found = set()
    for turn in range(len(batches)):
        histogram = Histogram(1)
        for batch in batches[turn:] + batches[:turn]:
            histogram.add(batch)
        found.add((histogram.percentile(95.0).item(), histogram.least_squared_error(7).item()))
    assert len(found) == 1


def test_zeros_and_nothing_have_no_clip():
    for batches in ([torch.zeros(1, 5)], [torch.full((1, 3), float("nan"))], [torch.zeros(1, 0)]):
        histogram = Histogram(1)
        for batch in batches:
            histogram.add(batch)
        for method in ("max", "percentile", "mse"):
            assert histogram.clip(method, 7, 99.9).item() == 0


def test_linear_histogram_is_close_to_the_other():
    x = torch.randn(3, 5000, generator=torch.Generator().manual_seed(0)).abs()
    x[1] *= 1e-42
    growing, linear = Histogram(3), LinearHistogram(x)
    growing.add(x)
    for method in ("max", "percentile", "mse"):
        one, other = (h.clip(method, 7, 99.0) for h in (growing, linear))
        torch.testing.assert_close(other.double()[[0, 2]], one[[0, 2]], rtol=0.011, atol=0)
    assert growing.counts.sum(1).tolist() == linear.counts.sum(1).tolist() == [5000.0] * 3


def test_learned_clip_of_a_weight_is_not_moved_by_an_outlier():
    weight = torch.randn(4, 2000, generator=torch.Generator().manual_seed(0))
    weight[0, 0] = 1e6
    options = {"init": "percentile", "init_percentile": 99.9}
    quantizer = build({"quantizer": "pact+", "bits": 4, **options}, "weight", groups=1)
    assert quantizer.clip(weight).item() == pytest.approx(
        numpy.percentile(weight.abs().numpy(), 99.9), rel=0.02
    )


def test_histogram_passes_over_what_is_not_finite():
    histogram = Histogram(1)
    assert histogram.is_empty
    histogram.add(torch.tensor([[float("nan"), float("inf"), 2.0, 1.0]]))
    assert float(histogram.clip("max", 7, 0)) == 2.0 and float(histogram.counts.sum()) == 2


@pytest.mark.parametrize(("init", "expected"), [("max", 3.0), ("percentile", 2.0)])
def test_calibrating_sets_the_clip_by_init(init, expected):
    model = torch.nn.Sequential(
        build(
            {"quantizer": "pact+", "bits": 4, "init": init, "init_percentile": 66.0}, "activation"
        )
    )
    x = torch.tensor([[1.0, -2.0, 3.0]])
    with calibrating(model) as quantizers:
        assert quantizers == [model[0]]
        assert torch.equal(model(x), x)
    assert model[0].is_calibrated
    assert model[0].clip().item() == pytest.approx(expected, rel=0.01)
    assert len(model(torch.linspace(-3, 3, 99)).unique()) == 15


def test_failed_calibration_leaves_clips_alone():
    quantizer = build({"quantizer": "pact+", "bits": 4}, "activation")
    with pytest.raises(RuntimeError, match="broken"), calibrating(quantizer):
        quantizer(torch.tensor([[5.0]]))
        raise RuntimeError("broken")
    assert not quantizer.is_calibrated and not quantizer.calibrating
    assert quantizer.clip_value.item() == 1.0


def test_zeros_say_nothing_of_the_range(caplog):
    quantizer = build({"quantizer": "pact+", "bits": 4}, "activation")
    with calibrating(torch.nn.Sequential(quantizer)):
        quantizer(torch.zeros(2, 3))
    assert not quantizer.is_calibrated and quantizer.clip_value.item() == 1.0
    assert "have no clip: 0" in caplog.text


def test_first_batch_without_calibration(monkeypatch):
    monkeypatch.setattr(calibration, "_warned", False)
    quantizer = build({"quantizer": "pact+", "bits": 4, "init": "max"}, "activation")
    with pytest.warns(UserWarning, match="without calibration"):
        calibration.calibrate_from(quantizer, torch.zeros(2, 3))
    assert not quantizer.is_calibrated
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the warning comes once
        calibration.calibrate_from(quantizer, torch.tensor([[0.5, -3.0, float("nan")]]))
    assert quantizer.is_calibrated and quantizer.clip().item() == 3.0
    with pytest.raises(ValueError, match="no finite value"):
        calibration.calibrate_from(quantizer, torch.tensor([[float("nan")]]))


def two_processes(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    learned = build({"quantizer": "pact", "bits": 4, "init": "max"}, "activation")
    running = build({"quantizer": "max", "bits": 4}, "activation")
    only_first = build({"quantizer": "pact", "bits": 4, "init": "max"}, "activation")
    nobody = build({"quantizer": "pact", "bits": 4, "init": "max"}, "activation")
    model = torch.nn.ModuleList([learned, running, only_first, nobody])
    with calibrating(model):
        for quantizer in (learned, running):
            quantizer(torch.tensor([[1.0 + 2 * rank]]))
        if rank == 0:
            only_first(torch.tensor([[6.0]]))
    running(torch.tensor([[5.0 - 4 * rank]]) if rank == 0 else torch.zeros(0, 1))
    fresh = build({"quantizer": "max", "bits": 4}, "activation")
    fresh(torch.tensor([[0.25 * rank]]))
    clips = [q.clip().item() for q in (*model, fresh)]
    torch.save((clips, [q.is_calibrated for q in (*model, fresh)]), f"{folder}/clips.{rank}")
    torch.distributed.destroy_process_group()


def test_two_processes_agree(tmp_path):
    torch.multiprocessing.spawn(two_processes, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"clips.{rank}") for rank in (0, 1))
    assert first == second == ([2.0, 5.0, 6.0, 1.0, 0.25], [True, True, True, False, True])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 8), st.floats(0.2, 3.0))
def test_the_share_cut_off_is_counted(seed, bits, clip):
    x = torch.randn(3000, generator=torch.Generator().manual_seed(seed))
    histogram = Histogram(1)
    for piece in x.abs().reshape(1, -1).split(1000, dim=1):
        histogram.add(piece)
    quantizer = build({"quantizer": "fix", "bits": bits, "clip": clip}, "activation")
    reach = clip * (1 + 0.5 / quantizer.max_code)
    expected = (x.abs() > reach).double().mean().item()
    assert quantizer.share_beyond(histogram) == pytest.approx(expected, abs=0.002)


def test_clips_that_cut_off_much_are_named(caplog):
    model = torch.nn.ModuleDict({"learned": build(
        {"quantizer": "pact", "bits": 4, "init": "percentile", "init_percentile": 90.0}, "activation"
    )})  # fmt: skip
    with calibrating(model):
        model["learned"](torch.linspace(0, 1, 1000))
    assert model["learned"].share_cut_off == pytest.approx(0.036, abs=0.002)
    assert "cut off more than 1 % of what was seen: learned: 3.6 % beyond 0.9" in caplog.text


def test_a_constant_that_cuts_off_much_stops_calibration_and_changes_nothing():
    constant = build({"quantizer": "fix", "bits": 4, "clip": 1.0}, "activation")
    learned = build({"quantizer": "pact", "bits": 4}, "activation")
    model = torch.nn.ModuleDict({"out": constant, "rnn": learned})
    message = r"out: 50\.0 % beyond 1, the largest 2\.14.*unbounded:.*allow_clipping: true"
    with pytest.raises(calibration.ClippingError, match=message), calibrating(model):
        for quantizer in model.values():
            quantizer(torch.linspace(0, 15 / 7, 1000))
    assert not learned.is_calibrated and not learned.calibrating
    with calibrating(model):
        for quantizer in model.values():
            quantizer(torch.linspace(0, 1.05, 1000))
    assert constant.share_cut_off == 0.0 and learned.is_calibrated
