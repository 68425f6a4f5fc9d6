"""Sizes of models at the bits of their schemes."""

import pytest
import torch
from small_transducer import SCHEME, build_transducer

from espnet_quant4.nn import QuantLinear, QuantLSTM
from espnet_quant4.report.model_size import measure
from espnet_quant4.scheme import apply_scheme


def test_size_by_hand():
    model = torch.nn.ModuleDict(
        {"rnn": QuantLSTM(3, 2, bidirectional=True), "out": QuantLinear(4, 5)}
    )
    scheme = {
        "lstm": {
            "weight_ih": {"quantizer": "max", "bits": 4, "granularity": "gate"},
            "weight_hh": {"quantizer": "lsq", "bits": 2},
        },
        "linear": {"weight": {"quantizer": "max", "bits": 8}},
    }
    assert measure(model).packed == measure(model).float32
    apply_scheme(model, scheme)
    weight_ih, weight_hh, biases, out = 8 * 3, 8 * 2, 16, 4 * 5
    bits = 2 * (4 * weight_ih + 2 * weight_hh + 32 * biases) + 8 * out + 32 * 5
    clips = 2 * (4 + 1) + 1
    size = measure(model)
    assert size.packed == bits // 8 + 4 * clips
    weights = 2 * (weight_ih + weight_hh + biases) + out + 5
    assert size.float32 == 4 * weights
    assert size.weight_bits == pytest.approx(bits / weights)


def test_quantized_transducer_is_smaller():
    assert measure(build_transducer(SCHEME)).packed < measure(build_transducer()).packed / 2
