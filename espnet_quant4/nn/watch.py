"""What quantization does to a model's tensors: how many have how many bits, and what it costs each."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from espnet_quant4.nn.quantized_module import QuantizedModule
from espnet_quant4.nn.tensors import float_weights, quantized_tensors, tensors_of_layer, weight_of
from espnet_quant4.quantizers import Quantizer
from espnet_quant4.quantizers.base import widened
from espnet_quant4.quantizers.registry import name_of

# Activations of a joint network are large; about so many values of each are looked at a call.
MOST_VALUES = 2**18
_LISTED = 8


@dataclass(frozen=True)
class TensorCost:
    """One tensor under its quantizer.

    Attributes:
        name: as in schemes, ``encoder.enc.0.nbrnn.l0.input``.
        bits: of its codes.
        clip: the largest of its clips.
        cut_off: share of the values of a magnitude over half a step above their clip, 0 to 1.
        snr: ``10 log10(sum x^2 / sum (x - q(x))^2)`` dB; infinite without noise.
        allow_clipping: whether the scheme accepts that the clip cuts off more than a few values.
    """

    name: str
    bits: int
    clip: float
    cut_off: float
    snr: float
    allow_clipping: bool = True


class _Sums:
    """Adds up squares, squared errors and what is cut off, on the tensors' own device."""

    def __init__(self, quantizer: Quantizer):
        self.quantizer = quantizer
        self._sums: torch.Tensor | None = None
        self._clip = 0.0

    def add(self, x: torch.Tensor) -> None:
        """Add values of any shape; of a weight all its rows."""
        with torch.no_grad():
            self._add(widened(x.detach()))

    def _add(self, x: torch.Tensor) -> None:
        if self.quantizer.role == "activation":
            x = x.flatten()[:: max(x.numel() // MOST_VALUES, 1)]
        clip = self.quantizer.clip(x)
        finite = x.isfinite()
        error = torch.where(finite, self.quantizer.fake_quantize(x) - x, 0.0)
        reach = self.quantizer.reach(clip)
        outside = finite & (x.abs() > self.quantizer.spread(reach, x))
        sums = torch.stack([
            torch.where(finite, x, 0.0).double().square().sum(),
            error.double().square().sum(), outside.double().sum(), finite.double().sum(),
        ])  # fmt: skip
        self._sums = sums if self._sums is None else self._sums + sums
        self._clip = clip.max()

    def result(self, name: str) -> TensorCost | None:
        """Return what it comes to; None where there was nothing, or nothing but zeros."""
        signal, noise, outside, count = [0.0] * 4 if self._sums is None else self._sums.tolist()
        if not signal > 0:
            return None
        snr = 10 * math.log10(signal / noise) if noise > 0 else math.inf
        quantizer = self.quantizer
        return TensorCost(
            name, quantizer.bits, float(self._clip), outside / count, snr, quantizer.allow_clipping
        )


class Watch:
    """Measures all quantized tensors of a model on some of its batches.

    Args:
        model: with layers of `espnet_quant4.nn`; a wrapper for several devices will do.
        batches: how many calls of the model are watched; the rest cost nothing.
    """

    def __init__(self, model: torch.nn.Module, batches: int = 2):
        self.model = model
        self.batches = batches
        # Of a model that DistributedDataParallel wraps, names as without.
        named = [(n.removeprefix("module."), q) for n, q in quantized_tensors(model)]
        self._sums = {name: _Sums(quantizer) for name, quantizer in named}

    @contextmanager
    def activations(self) -> Iterator[None]:
        """Watch the activations that pass through the model inside."""
        seen = 0

        def count(*_: Any) -> None:
            nonlocal seen
            seen += 1
            if seen >= self.batches:
                self._detach()

        for sums in self._sums.values():
            if sums.quantizer.role == "activation":
                sums.quantizer.watcher = sums.add
        handle = self.model.register_forward_hook(count)
        try:
            yield
        finally:
            handle.remove()
            self._detach()

    def _detach(self) -> None:
        for sums in self._sums.values():
            sums.quantizer.watcher = None

    def costs(self) -> list[TensorCost]:
        """Return what was measured and the weights as they are now, in the order of the model."""
        for place, module in self.model.named_modules():
            if not isinstance(module, QuantizedModule):
                continue
            for name, quantizer in tensors_of_layer(module):
                if quantizer.role == "weight":
                    full = ".".join(filter(None, (place, name))).removeprefix("module.")
                    self._sums[full] = _Sums(quantizer)
                    self._sums[full].add(weight_of(module, name))
        results = (sums.result(name) for name, sums in self._sums.items())
        return [result for result in results if result is not None]


def table_of_costs(costs: list[TensorCost]) -> str:
    """Return lines of text: a tensor each, the noisiest first."""
    width = max((len(cost.name) for cost in costs), default=0)
    lines = [f"{'tensor':<{width}}  bits        clip  cut off  SNR dB"]
    for cost in sorted(costs, key=lambda cost: cost.snr):
        lines.append(
            f"{cost.name:<{width}}  {cost.bits:4}  {cost.clip:10.5g}  {100 * cost.cut_off:6.2f}%"
            f"  {cost.snr:6.1f}"
        )
    return "\n".join(lines)


def describe_quantization(model: torch.nn.Module) -> str | None:
    """Say how many tensors of a model have how many bits, and what stays in float.

    Returns:
        A sentence, and a line for each quantized layer; None for a model without such layers.
    """
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, QuantizedModule)]
    if not layers:
        return None
    counts = Counter((q.bits, q.role) for _, q in quantized_tensors(model))
    numbers = [
        f"{count} {role}{'s' if count > 1 else ''} in {bits} bits"
        for (bits, role), count in sorted(counts.items(), key=lambda item: (item[0][0], item[0][1]))
    ]
    others = list(float_weights(model))
    names = [name for name, _ in others[:_LISTED]]
    names += [f"{len(others) - _LISTED} more"] if len(others) > _LISTED else []
    values = sum(weight.numel() for _, weight in others)
    in_float = f"weights of {values:,} values ({', '.join(names)})" if others else "no weight"
    lines = [
        f"quantization: {', '.join(numbers) or 'nothing, for the model has no scheme'}; in float: "
        f"{in_float}, all biases and states of cells"
    ]
    for place, module in layers:
        parts = [f"{n} {name_of(q)} {q.bits}" for n, q in tensors_of_layer(module)]
        if parts:
            lines.append(f"  {place or type(module).__name__}: {', '.join(parts)}")
    return "\n".join(lines)
