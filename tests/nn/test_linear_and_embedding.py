"""QuantLinear and QuantEmbedding against the layers of torch.nn and the definition."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_quant4.nn import QuantEmbedding, QuantLinear
from espnet_quant4.nn.quantized_module import float_state_dict

WEIGHT = {"quantizer": "max", "bits": 4, "granularity": "row"}
INPUT = {"quantizer": "fix", "bits": 4, "clip": 1.0}


def grid(x, clip, levels=7):
    return (x.clamp(-clip, clip) / (clip / levels)).round() * (clip / levels)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.booleans(), st.integers(0, 99))
def test_float_linear_equals_torch(features, outputs, bias, seed):
    torch.manual_seed(seed)
    reference = torch.nn.Linear(features, outputs, bias=bias)
    for quantized in (QuantLinear(features, outputs, bias=bias), QuantLinear.from_float(reference)):
        quantized.load_state_dict(reference.state_dict())
        x = torch.randn(3, 2, features)
        torch.testing.assert_close(quantized(x), reference(x), atol=1e-6, rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 99))
def test_quantized_linear_equals_definition(features, outputs, seed):
    torch.manual_seed(seed)
    layer = QuantLinear(features, outputs)
    layer.set_quantizers("", {"weight": WEIGHT, "input": INPUT})
    x = torch.randn(5, features)
    weight = layer.weight.detach()
    expected = grid(x, 1.0) @ grid(weight, weight.abs().amax(1, keepdim=True)).T + layer.bias
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


def test_from_float_shares_parameters():
    linear = torch.nn.Linear(3, 2)
    assert QuantLinear.from_float(linear).weight is linear.weight


def test_evaluated_weight_follows_changes():
    """The quantized weight that evaluation keeps is thrown away when the weight changes."""
    layer = QuantLinear(3, 2).eval()
    layer.set_quantizers("", {"weight": WEIGHT, "input": None})
    x = torch.randn(4, 3)
    with torch.no_grad():
        before = layer(x)
        assert torch.equal(layer(x), before)
        layer.weight.mul_(2.0)
        torch.testing.assert_close(layer(x) - layer.bias, 2 * (before - layer.bias))
        layer.load_state_dict({k: 3 * v for k, v in layer.state_dict().items()})
        torch.testing.assert_close(layer(x) - layer.bias, 6 * (before - layer.bias / 3))
        twin = copy.deepcopy(layer)
        twin.weight.zero_()
        torch.testing.assert_close(twin(x), twin.bias.expand(4, 2))


def test_embedding():
    torch.manual_seed(0)
    reference = torch.nn.Embedding(6, 4, padding_idx=0)
    layer = QuantEmbedding(6, 4, padding_idx=0)
    layer.load_state_dict(reference.state_dict())
    tokens = torch.tensor([[0, 3, 5]])
    torch.testing.assert_close(layer(tokens), reference(tokens))
    layer.set_quantizers("", {"weight": {**WEIGHT, "granularity": "tensor"}})
    weight = layer.weight.detach()
    torch.testing.assert_close(layer(tokens), grid(weight, weight.abs().max())[tokens])
    layer(tokens).sum().backward()
    assert (layer.weight.grad[0] == 0).all() and (layer.weight.grad[[3, 5]] == 1).all()


@pytest.mark.parametrize("option", [{"max_norm": 1.0}, {"sparse": True}])
def test_embedding_refuses_what_it_cannot_quantize(option):
    with pytest.raises(ValueError, match=r"valid choice is max_norm=None, sparse=False"):
        QuantEmbedding(6, 4, **option)


def test_float_state_dict_loads_into_torch_layers():
    layer = QuantLinear(3, 2)
    layer.set_quantizers("", {"weight": WEIGHT, "input": INPUT})
    torch.nn.Linear(3, 2).load_state_dict(float_state_dict(layer), strict=True)
