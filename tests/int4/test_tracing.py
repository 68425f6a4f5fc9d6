"""Tracers and transforms do not see kernels: they are refused, or get PyTorch's operations."""

import copy
import io

import pytest
import torch
from int4.test_convert import quantized_lstm
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

from espnet_quant4.int4 import convert, use_int4
from espnet_quant4.nn import QuantEmbedding, QuantLinear, QuantLSTM
from espnet_quant4.quantizers.calibration import calibrating
from espnet_quant4.scheme import apply_scheme

REFUSED = "cannot follow INT4 kernels.*ESPNET_QUANT4_INFERENCE=emulated"


def quantized_linear(family="pact+"):
    layer = QuantLinear(40, 30)
    weight = {"quantizer": "lsq", "bits": 4, "granularity": "row"}
    apply_scheme(layer, {"linear": {"weight": weight, "input": {"quantizer": family, "bits": 4}}})
    with calibrating(layer), torch.no_grad():
        layer(torch.randn(64, 40))
    layer(torch.randn(64, 40))
    return layer.eval()


def quantized_embedding():
    table = QuantEmbedding(50, 40)
    apply_scheme(table, {"embedding": {"weight": {"quantizer": "max", "bits": 4}}})
    return table.eval()


@pytest.fixture(scope="module")
def lstm():
    torch.manual_seed(0)
    # Large enough for the one-pass kernels of fake quantization.
    return quantized_lstm(20, 30, 2, bidirectional=True)


def cases():
    torch.manual_seed(0)
    x = torch.randn(3, 18, 20)
    ids = torch.randint(0, 50, (3, 4))
    return {
        "lstm": (quantized_lstm(20, 30, bidirectional=True), x),
        "linear": (quantized_linear(), torch.randn(64, 40)),
        "embedding": (quantized_embedding(), ids),
    }


def first(result):
    return result[0] if isinstance(result, tuple) else result


def batched(module, x):
    return torch.func.vmap(lambda one: first(module(one)))(torch.stack([x, x]))


def faked(module, x):
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        return module(mode.from_tensor(x))


def with_tangent(module, x):
    with forward_ad.dual_level():
        return module(forward_ad.make_dual(x, torch.ones_like(x)))


TRACERS = {
    "jit.trace": lambda module, x: torch.jit.trace(module, (x,)),
    "jit.script": lambda module, x: torch.jit.script(module),
    "onnx": lambda module, x: torch.onnx.export(module, (x,), io.BytesIO(), dynamo=False),
    "export": lambda module, x: torch.export.export(module, (x,)),
    "make_fx": lambda module, x: make_fx(lambda given: first(module(given)))(x),
    "vmap": batched,
    "fake": faked,
    "meta": lambda module, x: module(x.to("meta")),
    "forward_ad": with_tangent,
}


@pytest.mark.parametrize("warm", [False, True], ids=["first call", "later"])
@pytest.mark.parametrize("name", ["lstm", "linear", "embedding"])
def test_converted_modules_refuse(name, warm):
    module, x = cases()[name]
    converted = convert(module)
    expected = first(converted(x)) if warm else None
    for tracer, trace in TRACERS.items():
        if tracer == "forward_ad" and name == "embedding":
            continue  # ids have no tangent
        message = "run on cpu" if tracer == "meta" else REFUSED
        with pytest.raises(RuntimeError, match=message):
            trace(converted, x)
    # Nothing of a tracer's stays behind.
    found = first(converted(x))
    assert torch.equal(found, first(convert(module)(x)))
    assert expected is None or torch.equal(found, expected)


@pytest.mark.parametrize("name", ["lstm", "linear", "embedding"])
@pytest.mark.parametrize("mode", ["training", "evaluation", "int4"])
def test_quantized_modules_are_traced_in_pytorchs_operations(name, mode):
    module, x = cases()[name]
    other = x.flip(0)
    use_int4(module, "int4" if mode == "int4" else "emulated")
    module.train(mode == "training")
    with torch.set_grad_enabled(mode == "training"):
        expected = first(copy.deepcopy(module)(other))
        for trace in (torch.jit.trace, traced_anew, exported):
            found = first(trace(module, (x,))(other))
            torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
        with pytest.raises(RuntimeError, match="functorch"):
            batched(module, other)
        torch.testing.assert_close(first(module(other)), expected, rtol=0, atol=2e-6)


def traced_anew(module, arguments):
    """A trace as another program reads it, without this package."""
    stream = io.BytesIO()
    torch.jit.save(torch.jit.trace(module, arguments), stream)
    stream.seek(0)
    return torch.jit.load(stream)


def exported(module, arguments):
    return torch.export.export(module, arguments).module()


def test_compile_leaves_the_modules_to_python(lstm):
    converted = convert(lstm)
    model = torch.nn.Sequential(torch.nn.Tanh(), Output(converted), torch.nn.Linear(60, 3)).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        compiled = torch.compile(model, backend="eager")
        for frames in (5, 9, 5):
            x = torch.randn(frames, 2, 20)
            torch.testing.assert_close(compiled(x), model(x), rtol=0, atol=1e-6)
        with pytest.raises(Exception, match="cannot follow INT4 kernels"):
            torch.compile(Whole(converted), backend="eager", fullgraph=True)(torch.randn(5, 2, 20))


class Output(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)[0]


class Whole(Output):
    def forward(self, x):
        return super().forward(x) + 1


# ---- what else would reach the kernels as something that it is not -------------------------------


@pytest.mark.parametrize("family", ["pact", "pact+", "lsq", "max"])
def test_batches_of_gradients(family):
    torch.manual_seed(0)
    layer = quantized_linear(family).train()
    x = torch.randn(64, 40, requires_grad=True)
    out = layer(x).sum(0)
    parameters = [x, *layer.parameters()]
    unit = torch.eye(len(out))
    found = torch.autograd.grad(out, parameters, unit, is_grads_batched=True, retain_graph=True)
    single = [torch.autograd.grad(out, parameters, one, retain_graph=True) for one in unit]
    for batch, ones in zip(found, zip(*single, strict=True), strict=True):
        torch.testing.assert_close(batch, torch.stack(ones), rtol=1e-5, atol=1e-5)


def test_a_fused_lstm_says_what_to_do_with_batches_of_gradients(lstm):
    layer, x = copy.deepcopy(lstm).train(), torch.randn(9, 4, 20, requires_grad=True)
    use_int4(layer, "emulated")
    unit = torch.eye(60)
    for fused in (True, False):
        layer.fused = fused
        out = layer(x)[0].sum((0, 1))
        if fused:
            with pytest.raises(RuntimeError, match="QuantLSTM.fused = False"):
                torch.autograd.grad(out, x, unit, is_grads_batched=True)
    (once,) = torch.autograd.grad(out, x, unit[3], retain_graph=True)
    assert once.abs().sum() > 0


@pytest.mark.parametrize("place", ["float64", "meta"])
def test_defaults_of_pytorch_do_not_reach_the_kernels(lstm, place):
    """Memory that a kernel fills is float32 on the CPU, whatever PyTorch would hand out by default."""
    torch.manual_seed(0)
    x, lengths = torch.randn(9, 4, 20), torch.tensor([9, 3, 1, 5])
    modules = list(cases().values())
    converted = [(convert(module), given) for module, given in modules]
    layer = copy.deepcopy(lstm)
    layer.fused = True
    calls = [lambda module=module, given=given: first(module(given)) for module, given in converted]
    calls += [lambda: layer(x, lengths=lengths)[0].detach(), lambda: modules[1][0](modules[1][1])]
    expected = [call() for call in calls]
    default = torch.get_default_dtype()
    try:
        if place == "float64":
            torch.set_default_dtype(torch.float64)
            found = [call() for call in calls]
        else:
            with torch.device("meta"):
                found = [call() for call in calls]
    finally:
        torch.set_default_dtype(default)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32 and torch.equal(one, other)


def test_a_lazy_negation_is_done_before_its_memory_is_read():
    torch.manual_seed(0)
    module, x = cases()["linear"]
    lazy = torch._neg_view(x)
    assert lazy.is_contiguous() and lazy.is_neg()
    assert torch.equal(convert(module)(lazy), convert(module)(-x))
    with torch.enable_grad():
        assert torch.equal(module.train()(lazy), module(-x))


# ---- attributes ----------------------------------------------------------------------------------


def test_what_user_code_reads_from_pytorchs_modules():
    lstm = QuantLSTM(20, 30, 2, bias=False, dropout=0.2, batch_first=True)
    apply_scheme(lstm, {"lstm": {t: {"quantizer": "max", "bits": 4} for t in
                                 ("weight_ih", "weight_hh", "input", "hidden")}})  # fmt: skip
    with calibrating(lstm.eval()), torch.no_grad():
        lstm(torch.randn(4, 9, 20))
    pairs = [(convert(lstm), lstm), *((convert(m), m) for m, _ in list(cases().values())[1:])]
    names = ("mode", "input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout",
             "bidirectional", "proj_size", "in_features", "out_features", "num_embeddings",
             "embedding_dim", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq",
             "sparse", "training")  # fmt: skip
    read = 0
    for converted, original in pairs:
        for name in names:
            if hasattr(original, name) and not isinstance(getattr(original, name), torch.Tensor):
                assert getattr(converted, name) == getattr(original, name), name
                read += 1
        with pytest.raises(AttributeError, match="has no attribute 'all_weights': it holds codes"):
            _ = converted.all_weights
    assert read == 21
    converted = pairs[0][0]
    assert converted.flatten_parameters() is None
    assert not hasattr(copy.deepcopy(converted), "bias_ih_l0")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", ["lstm", "linear", "embedding"])
def test_another_precision_leaves_codes_and_scales_alone(name, dtype):
    module, x = cases()[name]
    converted = convert(module)
    before = {key: value.clone() for key, value in converted.state_dict().items()}
    expected = first(converted(x))
    moved = torch.nn.ModuleList([converted]).to(dtype)[0]
    assert all(
        value.dtype == before[key].dtype and torch.equal(value, before[key])
        for key, value in moved.state_dict().items()
    )
    found = first(moved(x))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, rtol=1e-2, atol=1e-2)
