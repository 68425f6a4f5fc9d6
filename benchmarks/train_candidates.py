"""What `train_step.py` compares: a training step of our LSTM and of the same LSTM elsewhere.

Every candidate takes a padded batch ``(T, B, input_size)`` with a gradient and gives its output, whose
backward pass is timed too. All quantized ones have 4-bit weights, inputs and hidden states.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import torch
from torch.nn.utils.rnn import pack_padded_sequence

from espnet_quant4.nn import QuantLSTM
from espnet_quant4.quantizers.calibration import calibrating

Forward = Callable[[torch.Tensor], torch.Tensor]

WEIGHT = {"quantizer": "sawb+", "bits": 4, "granularity": "gate"}
SPECIFICATION = {
    "weight_ih": WEIGHT,
    "weight_hh": WEIGHT,
    "input": {"quantizer": "pact+", "bits": 4},
    "hidden": {"quantizer": "fix", "bits": 4, "clip": 1.0},
}


@dataclass(frozen=True)
class Shape:
    """A batch and a bidirectional stack of LSTM layers."""

    batch: int
    frames: int
    input_size: int
    hidden_size: int
    layers: int

    @property
    def sizes(self) -> tuple[int, int, int]:
        """The arguments of ``torch.nn.LSTM``."""
        return self.input_size, self.hidden_size, self.layers

    @property
    def multiply_accumulates(self) -> int:
        """Of a step forward and backward: three times those of the forward pass."""
        inputs = [self.input_size] + [2 * self.hidden_size] * (self.layers - 1)
        rows = 8 * self.hidden_size
        return 3 * self.frames * self.batch * sum(rows * (n + self.hidden_size) for n in inputs)

    def lengths(self) -> torch.Tensor:
        """Lengths from 100% to 70%, as in a batch of utterances of similar duration."""
        return torch.linspace(self.frames, 0.7 * self.frames, self.batch).long()


def torch_padded(shape: Shape, x: torch.Tensor) -> tuple[torch.nn.Module, Forward]:
    """``torch.nn.LSTM`` on padded input."""
    module = torch.nn.LSTM(*shape.sizes, bidirectional=True)
    return module, lambda x: module(x)[0]


def torch_packed(shape: Shape, x: torch.Tensor) -> tuple[torch.nn.Module, Forward]:
    """``torch.nn.LSTM`` on a ``PackedSequence``, which ESPnet's RNN encoder feeds."""
    module = torch.nn.LSTM(*shape.sizes, bidirectional=True)
    lengths = shape.lengths()
    return module, lambda x: module(pack_padded_sequence(x, lengths))[0].data


def ours(quantized: bool, fused: bool, with_lengths: bool):
    """`QuantLSTM` in float or 4 bits, fused or by the loop, on full lengths or 70% to 100%."""

    def make(shape: Shape, x: torch.Tensor) -> tuple[torch.nn.Module, Forward]:
        module = QuantLSTM(*shape.sizes, bidirectional=True)
        module.fused = fused
        if quantized:
            for suffix, _ in module.quant_sites():
                module.set_quantizers(suffix, SPECIFICATION)
            with torch.no_grad(), calibrating(module):
                module(x[:2])
        lengths = shape.lengths() if with_lengths else None
        return module, lambda x: module(x, lengths=lengths, final_states=False)[0]

    return make


def fms_mo(shape: Shape, x: torch.Tensor) -> tuple[torch.nn.Module, Forward]:
    """``QLSTM`` of ``fms-model-optimizer``, with what its constructor needs and never sets."""
    # Its packages import transformers and more, of which this module needs nothing.
    for name in ("fms_mo", "fms_mo.modules"):
        spec = importlib.util.find_spec(name) if name not in sys.modules else None
        if spec is not None and spec.submodule_search_locations is not None:
            sys.modules[name] = ModuleType(name)
            sys.modules[name].__path__ = list(spec.submodule_search_locations)
    qlstm = importlib.import_module("fms_mo.modules.lstm").QLSTM

    class Complete(qlstm):
        extend_act_range = False

    # It is right with the batch first only.
    module = Complete(
        *shape.sizes, bidirectional=True, batch_first=True, num_bits_input=4, num_bits_hidden=4,
        num_bits_weight=4, qi_mode="pact+", qh_mode="pact+", qw_mode="sawb+", qcfg={},
    )  # fmt: skip
    return module, lambda x: module(x.transpose(0, 1))[0]


def brevitas(shape: Shape, x: torch.Tensor) -> tuple[torch.nn.Module, Forward]:
    """``QuantLSTM`` of Brevitas; gates and cell in float, as ours are."""
    layers = importlib.import_module("brevitas.nn")
    quantizer = importlib.import_module("brevitas.quant").Int8ActPerTensorFloat
    module = layers.QuantLSTM(
        *shape.sizes, bidirectional=True, weight_bit_width=4, io_quant=quantizer, io_bit_width=4,
        gate_acc_quant=None, sigmoid_quant=None, tanh_quant=None, cell_state_quant=None,
    )  # fmt: skip
    return module, lambda x: module(x)[0]


PADDED, PACKED = "nn.LSTM", "nn.LSTM packed"
CANDIDATES = {
    PADDED: torch_padded,
    PACKED: torch_packed,
    "fused": ours(True, True, False),
    "fused lengths": ours(True, True, True),
    "fused float": ours(False, True, False),
    "reference": ours(True, False, False),
    "fms_mo": fms_mo,
    "brevitas": brevitas,
}
