"""What `lstm.py` compares: our LSTM and the same weights in other CPU runtimes.

Each candidate is built for one number of threads and called with the same arrays: input ``(T, B,
input_size)`` and initial states ``(layers * directions, B, hidden_size)``; it gives back output and
final states, as a streaming recognizer needs them.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from espnet_quant4.int4 import convert
from espnet_quant4.nn import QuantLSTM
from espnet_quant4.scheme import apply_scheme

Call = Callable[[], tuple[np.ndarray, np.ndarray, np.ndarray]]

SCHEME = {
    "lstm": {
        "weight_ih": {"quantizer": "sawb+", "bits": 4, "granularity": "gate"},
        "weight_hh": {"quantizer": "sawb+", "bits": 4, "granularity": "gate"},
        "input": {"quantizer": "fix", "bits": 4, "clip": 3.0},
        "hidden": {"quantizer": "fix", "bits": 4, "clip": 1.0},
    },
    "linear": {"weight": None, "input": None},
    "embedding": {"weight": None},
}


@dataclass(frozen=True)
class Shape:
    """A stack of LSTM layers and its input."""

    input_size: int
    hidden_size: int
    layers: int
    bidirectional: bool
    frames: int
    batch: int

    @property
    def directions(self) -> int:
        """1 or 2."""
        return 2 if self.bidirectional else 1

    @property
    def multiply_accumulates(self) -> int:
        """Of all weights with all frames."""
        inputs = [self.input_size] + [self.directions * self.hidden_size] * (self.layers - 1)
        rows = 4 * self.hidden_size * self.directions
        return self.frames * self.batch * sum(rows * (n + self.hidden_size) for n in inputs)


class Problem:
    """Weights, input and states that all candidates share."""

    def __init__(self, shape: Shape, seed: int = 0):
        torch.manual_seed(seed)
        self.shape = shape
        self.lstm = torch.nn.LSTM(
            shape.input_size, shape.hidden_size, shape.layers, bidirectional=shape.bidirectional
        ).eval()
        self.x = torch.randn(shape.frames, shape.batch, shape.input_size)
        states = (shape.layers * shape.directions, shape.batch, shape.hidden_size)
        self.hidden, self.cell = 0.5 * torch.randn(states).tanh(), 0.5 * torch.randn(states)


class Wrapped(torch.nn.Module):
    """PyTorch converts the children of a module only."""

    def __init__(self, lstm: torch.nn.LSTM):
        super().__init__()
        self.lstm = lstm

    def forward(self, x, states):
        return self.lstm(x, states)


def _module_call(problem: Problem, module: torch.nn.Module, threads: int) -> Call:
    states = (problem.hidden, problem.cell)

    def call() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        out, (hidden, cell) = module(problem.x, states)
        return out, hidden, cell

    return call


def torch_float32(problem: Problem, threads: int) -> Call:
    """``torch.nn.LSTM``."""
    return _module_call(problem, problem.lstm, threads)


def torch_int8(problem: Problem, threads: int) -> Call:
    """PyTorch's dynamically quantized LSTM."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.ao.quantization.quantize_dynamic(
            Wrapped(problem.lstm), {torch.nn.LSTM}, dtype=torch.qint8
        )
    if "quantized" not in type(module.lstm).__module__:
        raise RuntimeError(f"not converted: {type(module.lstm)}")
    return _module_call(problem, module, threads)


def emulated_module(problem: Problem) -> QuantLSTM:
    """Return our quantized LSTM with the problem's weights."""
    shape = problem.shape
    module = QuantLSTM(
        shape.input_size, shape.hidden_size, shape.layers, bidirectional=shape.bidirectional
    )
    module.load_state_dict(problem.lstm.state_dict())
    apply_scheme(module, SCHEME)
    return module.eval()


def emulated(problem: Problem, threads: int) -> Call:
    """Our quantized LSTM as in training, in float."""
    return _module_call(problem, emulated_module(problem), threads)


def int4(problem: Problem, threads: int) -> Call:
    """Our quantized LSTM on codes."""
    return _module_call(problem, convert(emulated_module(problem)), threads)


# ---- ONNX ----------------------------------------------------------------------------------------


def onnx_model(problem: Problem) -> bytes:
    """Return a chain of ONNX LSTM operators with the problem's weights."""
    from onnx import TensorProto, helper, numpy_helper

    shape, directions = problem.shape, problem.shape.directions

    def iofc(name: str) -> np.ndarray:
        """A parameter's gates in ONNX's order: i, o, f, c."""
        value = getattr(problem.lstm, name).detach().numpy()
        i, f, g, o = np.split(value, 4)
        return np.concatenate([i, o, f, g])

    nodes, constants, hidden_out, cell_out = [], [], [], []
    endings = ["", "_reverse"][:directions]
    current = "x"
    for layer in range(shape.layers):
        parts = {
            "W": [iofc(f"weight_ih_l{layer}{e}") for e in endings],
            "R": [iofc(f"weight_hh_l{layer}{e}") for e in endings],
            "B": [np.concatenate([iofc(f"bias_ih_l{layer}{e}"), iofc(f"bias_hh_l{layer}{e}")])
                  for e in endings],
        }  # fmt: skip
        for key, value in parts.items():
            constants.append(numpy_helper.from_array(np.stack(value), f"{key}{layer}"))
        here = [layer * directions, (layer + 1) * directions]
        for name, value in (("start", here[:1]), ("stop", here[1:])):
            constants.append(numpy_helper.from_array(np.array(value), f"{name}{layer}"))
        for state in ("hidden", "cell"):
            nodes.append(
                helper.make_node(
                    "Slice", [state, f"start{layer}", f"stop{layer}", "zero"], [f"{state}{layer}"]
                )
            )
        nodes.append(
            helper.make_node(
                "LSTM",
                [
                    current,
                    f"W{layer}",
                    f"R{layer}",
                    f"B{layer}",
                    "",
                    f"hidden{layer}",
                    f"cell{layer}",
                ],
                [f"y{layer}", f"hn{layer}", f"cn{layer}"],
                hidden_size=shape.hidden_size,
                direction="bidirectional" if shape.bidirectional else "forward",
            )
        )
        # (T, directions, B, H) -> (T, B, directions * H)
        nodes.append(helper.make_node("Transpose", [f"y{layer}"], [f"t{layer}"], perm=[0, 2, 1, 3]))
        nodes.append(helper.make_node("Reshape", [f"t{layer}", "shape"], [f"out{layer}"]))
        current = f"out{layer}"
        hidden_out.append(f"hn{layer}")
        cell_out.append(f"cn{layer}")
    nodes.append(helper.make_node("Identity", [current], ["out"]))
    nodes.append(helper.make_node("Concat", hidden_out, ["hidden_out"], axis=0))
    nodes.append(helper.make_node("Concat", cell_out, ["cell_out"], axis=0))
    width = directions * shape.hidden_size
    constants.append(numpy_helper.from_array(np.array([0]), "zero"))
    constants.append(numpy_helper.from_array(np.array([shape.frames, shape.batch, width]), "shape"))
    state_shape = list(problem.hidden.shape)

    def info(name: str, size: list[int]):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, size)

    graph = helper.make_graph(
        nodes,
        "lstm",
        [info("x", list(problem.x.shape)), info("hidden", state_shape), info("cell", state_shape)],
        [info("out", [shape.frames, shape.batch, width]),
         info("hidden_out", state_shape), info("cell_out", state_shape)],
        constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    return model.SerializeToString()


def _onnxruntime_call(problem: Problem, model: bytes | str, threads: int) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Its threads would go on spinning while the next candidate runs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = {
        "x": problem.x.numpy(),
        "hidden": problem.hidden.numpy(),
        "cell": problem.cell.numpy(),
    }
    return lambda: session.run(None, feeds)


def onnxruntime_float32(problem: Problem, threads: int) -> Call:
    """onnxruntime on float32 weights."""
    return _onnxruntime_call(problem, onnx_model(problem), threads)


def onnxruntime_int8(problem: Problem, threads: int) -> Call:
    """onnxruntime, dynamically quantized: unsigned 7-bit weights, so that AVX2 does not saturate."""
    import logging

    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        source.write_bytes(onnx_model(problem))
        level = logging.getLogger().level
        logging.getLogger().setLevel(logging.ERROR)
        quantize_dynamic(
            source, target, op_types_to_quantize=["LSTM"], weight_type=QuantType.QUInt8,
            reduce_range=True,
        )  # fmt: skip
        logging.getLogger().setLevel(level)
        if b"DynamicQuantizeLSTM" not in target.read_bytes():
            raise RuntimeError("onnxruntime quantized nothing")
        return _onnxruntime_call(problem, str(target), threads)


def openvino_float32(problem: Problem, threads: int) -> Call:
    """OpenVINO on float32 weights."""
    import openvino

    core = openvino.Core()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "float.onnx")
        source.write_bytes(onnx_model(problem))
        model = core.read_model(source)
    compiled = core.compile_model(
        model,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        },
    )
    request = compiled.create_infer_request()
    feeds = [problem.x.numpy(), problem.hidden.numpy(), problem.cell.numpy()]

    def call() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        found = request.infer(feeds, share_inputs=True)
        return found[0], found[1], found[2]

    return call


# name: (how to build it, largest error of the output that it may have, how to install it)
CANDIDATES = {
    "int4": (int4, None, "pip install ."),
    "emulated": (emulated, None, "pip install ."),
    "torch_float32": (torch_float32, 1e-4, "pip install torch"),
    "torch_int8": (torch_int8, 0.05, "pip install torch"),
    "onnxruntime_float32": (onnxruntime_float32, 1e-4, "pip install onnx onnxruntime"),
    "onnxruntime_int8": (onnxruntime_int8, 0.05, "pip install onnx onnxruntime"),
    "openvino_float32": (openvino_float32, 1e-4, "pip install onnx openvino"),
}
OURS = ("int4", "emulated")
