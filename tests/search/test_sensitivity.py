"""What a weight's width costs a small transducer."""

import copy
from argparse import Namespace

import pytest
import torch

from espnet_quant4.quantizers.calibration import calibrate_on
from espnet_quant4.search.sensitivity import (
    Measured,
    builder,
    increases,
    mean_loss,
    measure,
    weight_sites,
    with_widths,
)
from tests.small_transducer import SCHEME, build_transducer, random_batch


class SmallTask:
    """What a search needs of ESPnet's task."""

    @staticmethod
    def build_model(args: Namespace) -> torch.nn.Module:
        return build_transducer(**args.model_conf)


@pytest.fixture
def trained():
    model = build_transducer(copy.deepcopy(SCHEME)).eval()
    calibrate_on(model, [random_batch()])
    return model


def test_both_directions_of_a_layer_are_one_site(trained) -> None:
    sites = weight_sites(trained)
    # 4 gates of 6 cells from 16 inputs, in two directions.
    assert sites["encoder.enc.0.nbrnn.l0", "weight_ih"] == (2 * 24 * 16, 4)
    assert sites["joint_network.lin_out", "weight"] == (7 * 7, 4)
    assert not any("reverse" in layer for layer, _ in sites)


def test_each_width_is_measured_alone(trained) -> None:
    batches = [random_batch(0), random_batch(1)]
    build = builder(SmallTask, Namespace(model_conf={}), trained.state_dict())
    seen = []
    found = measure(build, SCHEME, batches, [2, 8], on_measured=lambda *entry: seen.append(entry))
    base = mean_loss(trained, batches)
    site = ("encoder.enc.0.nbrnn.l1", "weight_ih")
    assert found[site].bits == 4 and sorted(found[site].losses) == [2, 4, 8]
    assert found[site].losses[4] == pytest.approx(base, rel=1e-5)
    # By hand: the same quantizers at another width.
    changed = copy.deepcopy(trained)
    for name, module in changed.named_modules():
        if name.startswith("encoder.enc.0.nbrnn.quantizers.l1") and name.endswith("weight_ih"):
            module.bits = 2
    assert found[site].losses[2] == pytest.approx(mean_loss(changed, batches), rel=1e-4)
    assert abs(found[site].losses[2] - base) > 1e-4
    assert len(seen) == 3 * len(found)


def test_what_is_known_is_not_measured_again(trained) -> None:
    build = builder(SmallTask, Namespace(model_conf={}), trained.state_dict())
    sites = weight_sites(trained)
    known = {site: {2: 7.0, 4: 6.0} for site in sites}
    found = measure(build, SCHEME, [], [2], known)
    assert all(entry.losses == {2: 7.0, 4: 6.0} for entry in found.values())


def test_more_bits_never_cost_more() -> None:
    measured = {("a", "weight"): Measured(10, 4, {2: 1.5, 3: 0.9, 4: 1.0, 8: 1.1})}
    costs = increases(measured)["a", "weight"]
    # Three bits and more say 0.9, 1.0, 1.1: as much as one another.
    assert costs == {2: pytest.approx(0.5), **dict.fromkeys((3, 4, 8), pytest.approx(0))}


def test_widths_come_behind_all_other_overrides() -> None:
    scheme = {**SCHEME, "overrides": [{"pattern": "joint_network.*", "weight": {"bits": 8}}]}
    changed = with_widths(scheme, {("joint_network.lin_out", "weight"): 3})
    model = build_transducer(changed)
    assert weight_sites(model)["joint_network.lin_out", "weight"][1] == 3
    assert weight_sites(model)["joint_network.lin_enc", "weight"][1] == 8


def test_nothing_to_measure_on(trained) -> None:
    with pytest.raises(ValueError, match="no batch"):
        mean_loss(trained, [])
