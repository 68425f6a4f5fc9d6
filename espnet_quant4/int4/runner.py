"""Lets a quantized model compute on codes in evaluation, while it stays what it is.

ESPnet builds and loads the model itself, so nothing is replaced: each quantized layer asks its runner
first, which keeps the layer's INT4 form beside it and makes it anew when a weight or clip changes.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import torch

from espnet_quant4.int4.convert import convert_module
from espnet_quant4.int4.int4_module import Int4Module
from espnet_quant4.int4.running_path import describe_kernels, is_quantized, why_emulated
from espnet_quant4.kernels import native
from espnet_quant4.kernels.tracing import tracer_of
from espnet_quant4.nn.quantized_module import CONVERTED, QuantizedModule, change_key

SWITCH = "ESPNET_QUANT4_INFERENCE"
INFERENCES = ("int4", "emulated")
# Parameters and clips; `calibrated` of a quantizer.
OF_FLOAT32_MODELS = (torch.float32, torch.int64)

# What was said in this process: each path once.
_said: set[str] = set()


def use_int4(model: torch.nn.Module, inference: str = "int4") -> None:
    """Choose how the quantized layers of a model compute in evaluation without gradients, on CPU.

    Args:
        model: a model with layers of `espnet_quant4.nn`.
        inference: ``int4`` or ``emulated``; the environment variable ``ESPNET_QUANT4_INFERENCE``
            overrules it.

    Raises:
        ValueError: for any other choice.
    """
    choice = os.environ.get(SWITCH) or inference
    where = SWITCH if os.environ.get(SWITCH) else "model_conf: inference"
    if choice not in INFERENCES:
        raise ValueError(f"{where}: {choice!r}; valid: {', '.join(INFERENCES)}")
    for module in model.modules():
        if isinstance(module, QuantizedModule):
            module.inference_runner = run_int4 if choice == "int4" else None
            module.inference_choice = f"{where}={choice}"


def run_int4(module: QuantizedModule, *args: Any, **kwargs: Any) -> Any:
    """Compute a module's result on codes; NotImplemented where it has to be emulated.

    That is so off the CPU, while calibrating or being watched, without the C++ kernels, where something
    is in float, and in a model of another precision than float32, which is to give results of its own.
    """
    if tracer_of() is not None:
        return NotImplemented
    wanted = not module.training and not torch.is_grad_enabled()
    converted = _converted(module) if wanted else None
    if converted is None:
        if is_quantized(module):
            _say_why(module)
        return NotImplemented
    if "int4" not in _said:
        _said.add("int4")
        logging.info(f"INT4: quantized layers compute on codes ({describe_kernels()})")
    return converted(*args, **kwargs)


def _say_why(module: QuantizedModule) -> None:
    why = why_emulated(module, torch.is_grad_enabled())
    if why is None or why.text in _said:
        return
    _said.add(why.text)
    level = logging.INFO if why.is_expected else logging.WARNING
    logging.log(level, f"quantized layers are emulated in float, and slower: {why.text}")


def _converted(module: QuantizedModule) -> Int4Module | None:
    key = _state_of(module)
    if key is None or not native.is_available():
        return None
    kept: tuple[Any, Int4Module | None] | None = module.__dict__.get(CONVERTED)
    if kept is None or kept[0] != key:
        kept = (key, convert_module(module))
        module.__dict__[CONVERTED] = kept
    return kept[1]


def _state_of(module: QuantizedModule) -> tuple[Any, ...] | None:
    """Return what changes whenever the INT4 form would; None where that cannot be known."""
    tensors: list[torch.Tensor] = []
    parts: list[Any] = [module]
    # A walk by hand: a beam search comes here for every token, and PyTorch's own takes three times as
    # long as the layer itself.
    for part in parts:
        own = part.__dict__
        if own.get("calibrating") or own.get("watcher") is not None:
            return None
        tensors.extend(own["_parameters"].values())
        tensors.extend(own["_buffers"].values())
        parts.extend(own["_modules"].values())
    present = [tensor for tensor in tensors if tensor is not None]
    suits = all(tensor.is_cpu and tensor.dtype in OF_FLOAT32_MODELS for tensor in present)
    return change_key(present) if suits else None
