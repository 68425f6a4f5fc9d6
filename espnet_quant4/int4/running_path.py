"""Which way a model's quantized layers compute, on codes or emulated in float, and why."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from espnet_quant4.int4.conversion_plan import int4_class
from espnet_quant4.int4.int4_module import Int4Module
from espnet_quant4.kernels import native
from espnet_quant4.nn.quantized_module import QuantizedModule
from espnet_quant4.quantizers import Quantizer


@dataclass(frozen=True)
class Why:
    """Why a layer is emulated.

    Attributes:
        text: a clause that follows a colon.
        is_expected: whether the user has chosen it, so that nothing need be done.
    """

    text: str
    is_expected: bool = False


def describe_kernels() -> str:
    """Return what computes on codes on this machine: ``C++ kernels, avx2, 2 threads``."""
    problem = kernels_problem()
    if problem is not None:
        return f"plain PyTorch, slower: {problem}"
    return f"C++ kernels, {native.instruction_set_name()}, {torch.get_num_threads()} threads"


def kernels_problem() -> str | None:
    """Return why the C++ kernels cannot be used on this machine; None where they can."""
    try:
        native.load()
        native.selected_instruction_set()
    except native.NativeError as error:
        return str(error)
    return None


def describe_path(model: torch.nn.Module, gradients: bool = False) -> str:
    """Say in one line how a model's quantized layers compute here and now.

    Args:
        model: quantized or converted; its present mode, device and precision count.
        gradients: whether gradients are on where it is called. ESPnet's inference turns them off.

    Returns:
        Such as ``INT4: all 9 quantized layers compute on codes (C++ kernels, avx2, 2 threads)``, or
        with what is emulated in float, and why.
    """
    total, reasons = 0, dict[str, list[str]]()
    for name, module in model.named_modules():
        if isinstance(module, Int4Module):
            total += 1
        elif isinstance(module, QuantizedModule) and is_quantized(module):
            total += 1
            why = why_emulated(module, gradients)
            if why is not None:
                reasons.setdefault(why.text, []).append(name or type(module).__name__)
    if not total:
        return "float: the model has no quantized layer"
    emulated = sum(len(names) for names in reasons.values())
    parts = []
    if emulated < total:
        count = f"all {total}" if not emulated else f"{total - emulated} of {total}"
        parts.append(f"INT4: {count} quantized layers compute on codes ({describe_kernels()})")
    for text, names in reasons.items():
        named = "" if len(names) == total else f" ({', '.join(names)})"
        count = f"all {total}" if len(names) == total else f"{len(names)} of {total}"
        parts.append(f"emulated in float: {count} quantized layers{named}: {text}")
    return "; ".join(parts)


def is_quantized(module: QuantizedModule) -> bool:
    """Whether a scheme has put a quantizer on a layer."""
    return any(isinstance(part, Quantizer) for part in module.quantizers.modules())


def why_emulated(module: QuantizedModule, gradients: bool) -> Why | None:
    """Return why a quantized layer does not compute on codes; None where it does.

    Args:
        module: with quantizers.
        gradients: whether gradients are on.
    """
    if module.inference_runner is None:
        return Why(module.inference_choice, is_expected=True)
    if module.training:
        return Why("the model is in training mode; call its eval()")
    if gradients:
        return Why("gradients are on; call the model under torch.no_grad()")
    problem = kernels_problem()
    if problem is not None:
        return Why(problem)
    return _why_of_tensors(module) or _why_of_scheme(module)


def _why_of_tensors(module: QuantizedModule) -> Why | None:
    tensors = [*module.parameters(), *module.buffers()]
    devices = {tensor.device.type for tensor in tensors} - {"cpu"}
    if devices:
        return Why(f"the model is on {', '.join(sorted(devices))}; INT4 kernels run on cpu")
    dtypes = {t.dtype for t in tensors if t.is_floating_point()} - {torch.float32}
    if dtypes:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        return Why(f"the model is in {names}; INT4 kernels compute in float32 beside codes")
    if any(tensor.is_inference() for tensor in tensors):
        return Why(
            "the weights were made under torch.inference_mode(), which does not tell when they change; "
            "load them outside of it"
        )
    return None


def _why_of_scheme(module: QuantizedModule) -> Why | None:
    quantizers = [part for part in module.quantizers.modules() if isinstance(part, Quantizer)]
    if any(quantizer.calibrating for quantizer in quantizers):
        return Why("the model is being calibrated", is_expected=True)
    if any(quantizer.watcher is not None for quantizer in quantizers):
        return Why("its quantizers are being watched", is_expected=True)
    if any(q.role == "activation" and not q.is_calibrated for q in quantizers):
        return Why("clips of activations were never set; calibrate the model")
    found = int4_class(module)
    if found is None or any(q is None for q in found.needed(module).values()):
        return Why("the scheme leaves a part of these layers in float", is_expected=True)
    return None
