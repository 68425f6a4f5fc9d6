"""Quantized layers in double and half precision: they keep the dtype of their module."""

import copy

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from espnet_quant4.nn import QuantEmbedding, QuantLinear, QuantLSTM
from espnet_quant4.quantizers.calibration import calibrating
from espnet_quant4.quantizers.registry import names

EXTRA = {"fix": {"clip": 1.0, "allow_clipping": True}, "percentile": {"percentile": 99.0}}
DTYPES = [torch.float64, torch.float16, torch.bfloat16]


def assert_close(found, expected):
    """Narrow numbers move a code here and there, which is a step of 1/7; wide ones move none."""
    if found.dtype == torch.float64:
        torch.testing.assert_close(found, expected.double(), rtol=0, atol=1e-4)
    else:
        assert (found.float() - expected).abs().mean() < 0.02


def specification(name):
    return {"quantizer": name, "bits": 4, **EXTRA.get(name, {})}


def quantized_lstm(name, tensors):
    torch.manual_seed(0)
    lstm = QuantLSTM(5, 6, 2, bidirectional=True, batch_first=True)
    for site, _ in lstm.quant_sites():
        lstm.set_quantizers(site, dict.fromkeys(tensors, specification(name)))
    with calibrating(lstm):
        lstm(torch.randn(3, 6, 5))
    return lstm.eval()


def run(lstm, dtype, form):
    """Run forward and backward in a form of input; return the output and all gradients."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 6, 5, generator=generator).to(dtype).requires_grad_()
    states = [torch.rand(4, 3, 6, generator=generator).sub(0.5).to(dtype) for _ in range(2)]
    lengths = torch.tensor([6, 4, 1])
    if form == "packed":
        output, ends = lstm(pack_padded_sequence(x, lengths, batch_first=True))
        output = output.data
    else:
        output, ends = lstm(
            x,
            tuple(states) if form == "states" else None,
            lengths=lengths if form == "lengths" else None,
        )
    output.square().sum().backward()
    gradients = [p.grad for p in lstm.parameters() if p.grad is not None]
    assert len(gradients) >= 16
    lstm.zero_grad()
    return output, [output, *ends, x.grad, *gradients]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", names())
def test_lstm_keeps_its_dtype_and_its_values(name, dtype):
    for tensors in (["weight_ih", "weight_hh", "input", "hidden"], ["weight_ih"], ["hidden"]):
        lstm = quantized_lstm(name, tensors)
        other = copy.deepcopy(lstm).to(dtype)
        for form in ("plain", "lengths", "states", "packed"):
            expected, _ = run(lstm, torch.float32, form)
            found, all_of_it = run(other, dtype, form)
            assert {t.dtype for t in all_of_it} == {dtype}
            assert_close(found, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", names())
def test_linear_and_embedding_keep_their_dtype_and_their_values(name, dtype):
    torch.manual_seed(0)
    linear, embedding = QuantLinear(5, 7), QuantEmbedding(9, 5)
    linear.set_quantizers("", {"weight": specification(name), "input": specification(name)})
    embedding.set_quantizers("", {"weight": specification(name)})
    model = torch.nn.Sequential(embedding, linear)
    ids = torch.tensor([[1, 8, 3], [0, 2, 2]])
    with calibrating(model):
        model(ids)
    model.eval()
    other = copy.deepcopy(model).to(dtype)
    expected, found = model(ids), other(ids)
    assert embedding(ids).dtype == torch.float32 and other[0](ids).dtype == found.dtype == dtype
    assert_close(found, expected)
    found.square().sum().backward()
    assert {p.grad.dtype for p in other.parameters() if p.grad is not None} == {dtype}
    # What is kept in evaluation without gradients is of that dtype too.
    with torch.no_grad():
        assert other(ids).dtype == other(ids).dtype == dtype


@pytest.mark.parametrize("name", names())
def test_double_precision_is_not_float32_in_disguise(name):
    lstm = quantized_lstm(name, ["weight_ih", "weight_hh"]).double()
    for quantizer in lstm.quantizers["l0"].values():
        weight = lstm.weight_ih_l0.detach() if quantizer.groups == 1 else None
        assert quantizer.clip(weight).dtype == torch.float64
        assert quantizer.quantize(weight).dtype == torch.float64


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("with_lengths", [False, True])
def test_gradients_of_what_is_smooth_are_those_of_differences(name, with_lengths):
    """With quantized weights an LSTM is smooth in its input, its biases and its states."""
    lstm = quantized_lstm(name, ["weight_ih", "weight_hh"]).double()
    x = torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True)
    states = [torch.randn(4, 2, 6, dtype=torch.float64).tanh().requires_grad_() for _ in range(2)]
    lengths = torch.tensor([4, 2]) if with_lengths else None

    def function(x, hidden, cell, bias):
        replaced = {"bias_hh_l1_reverse": bias}
        return torch.func.functional_call(lstm, replaced, (x, (hidden, cell), lengths))[0]

    bias = lstm.bias_hh_l1_reverse.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(function, (x, *states, bias), fast_mode=True)


def test_quantized_states_pass_gradients_of_the_cell_in_double():
    """The last frame's output before quantization is smooth in the cell state."""
    lstm = quantized_lstm("fix", ["weight_ih", "weight_hh", "hidden"]).double()
    x = torch.randn(2, 1, 5, dtype=torch.float64)
    hidden, cell = (torch.randn(4, 2, 6, dtype=torch.float64).tanh() for _ in range(2))
    cell.requires_grad_()

    def upper_layer(cell):
        whole = torch.cat([torch.zeros_like(cell[:2]), cell[2:]])
        return lstm(x, (hidden, whole))[0]

    assert torch.autograd.gradcheck(upper_layer, (cell,))


def test_narrow_cells_add_up_in_float32():
    """What a forget gate near 1 adds up step by step would stand still in bfloat16."""
    lstm = QuantLSTM(1, 1)
    lstm.set_quantizers("l0", {"hidden": specification("fix")})
    with torch.no_grad():
        for parameter in lstm.parameters():
            parameter.zero_()
        lstm.bias_ih_l0.copy_(torch.tensor([-2.0, 20.0, 0.01, 20.0]))
    _, (_, expected) = lstm(torch.zeros(2000, 1, 1))
    _, (_, found) = lstm.bfloat16()(torch.zeros(2000, 1, 1, dtype=torch.bfloat16))
    assert found.item() == pytest.approx(expected.item(), rel=0.02)


def test_int4_leaves_other_precisions_to_the_module():
    from espnet_quant4.int4 import use_int4

    lstm = quantized_lstm("fix", ["weight_ih", "weight_hh", "input", "hidden"])
    use_int4(lstm, "int4")
    x = torch.randn(2, 4, 5)
    with torch.no_grad():
        found, (hidden, _) = lstm.double()(x.double())
    assert found.dtype == hidden.dtype == torch.float64
