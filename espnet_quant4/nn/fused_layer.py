"""Whether a layer of `QuantLSTM` can run through the fused kernels, and how it then does.

What has no fused form (a quantizer with rounding of its own, half or double precision, autocast,
another device, no compiled library) is left to the reference loop, which gives the same result.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from espnet_quant4.kernels import native
from espnet_quant4.kernels.fused_lstm import InputCodes, Layer, lstm_layer
from espnet_quant4.kernels.gradient_rules import GradientRule
from espnet_quant4.kernels.tracing import tracer_of
from espnet_quant4.nn.fused_weights import FusedWeight, fuse_weights
from espnet_quant4.quantizers import Quantizer

# With fewer frames, packing the recurrent weight costs more than it saves where nothing is trained: the
# prediction network is called for a token at a time.
LEAST_FRAMES_TO_EVALUATE = 8
# Largest code of what the kernels keep two a byte.
NARROW = 7

# Environment variable that turns the fused kernels off in training, to compare or to look for faults.
SWITCH = "ESPNET_QUANT4_TRAINING"
CHOICES = ("fused", "loop")


def fused_by_default() -> bool:
    """Whether layers on the CPU run through the fused kernels: ``$ESPNET_QUANT4_TRAINING``.

    Raises:
        ValueError: for a value that it does not know.
    """
    value = os.environ.get(SWITCH, CHOICES[0])
    if value not in CHOICES:
        raise ValueError(f"{SWITCH}={value}; valid: {', '.join(CHOICES)}. Unset it for fused.")
    return value == CHOICES[0]


@dataclass(frozen=True)
class HiddenForm:
    """How the hidden states of all directions are quantized, as the kernel takes it.

    Attributes:
        clips: ``(D,)`` float32 with its gradient.
        max_codes: of each direction.
        rules: of each direction.
    """

    clips: torch.Tensor
    max_codes: tuple[int, ...]
    rules: tuple[GradientRule, ...]


def suits_kernel(tensors: Sequence[torch.Tensor], frames: int, enabled: bool) -> bool:
    """Whether these tensors can go through the fused kernels here and now.

    Args:
        tensors: input, states and parameters of a layer.
        frames: number of steps.
        enabled: what the caller wishes.
    """
    return (
        enabled
        and (torch.is_grad_enabled() or frames >= LEAST_FRAMES_TO_EVALUATE)
        and all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)
        and not any(t.is_neg() for t in tensors)
        and not torch.is_autocast_enabled("cpu")
        and tracer_of(*tensors) is None
        and native.is_available()
    )


def hidden_form(quantizers: Sequence[Quantizer | None], like: torch.Tensor) -> HiddenForm | None:
    """Return how the hidden states are quantized; None where one quantizer has no fused form.

    Args:
        quantizers: of each direction.
        like: ``(B, H)``, of the shape that a quantizer gets at each step.
    """
    clips, max_codes, rules = [], [], []
    for quantizer in quantizers:
        if quantizer is None:
            form: tuple[torch.Tensor | float, GradientRule] | None = (1.0, GradientRule.NONE)
        else:
            form = quantizer.fused_form(like)
        if form is None:
            return None
        clip, rule = form
        is_number = not isinstance(clip, torch.Tensor)
        # Whatever PyTorch's defaults are.
        place = {"dtype": torch.float32, "device": "cpu"}
        clips.append(torch.tensor([clip], **place) if is_number else clip)
        max_codes.append(1 if quantizer is None else quantizer.max_code)
        rules.append(rule)
    return HiddenForm(torch.cat(clips), tuple(max_codes), tuple(rules))


def input_codes(readers: Sequence[Quantizer | None], weight: FusedWeight) -> InputCodes | None:
    """Return how the input product is computed on codes; None where floats are better, or needed.

    Args:
        readers: what quantized the input: one, or one for each equal part of its columns.
        weight: ``weight_ih``.
    """
    reader = readers[0]
    if reader is None or weight.codes is None or not all_narrow(readers):
        return None
    clips = {float(q.clip().detach()) for q in readers if q is not None}
    codes = {q.max_code for q in readers if q is not None}
    if len(clips) > 1 or len(codes) > 1:
        return None
    return InputCodes(clips.pop(), reader.max_code, weight.codes)


def all_narrow(quantizers: Sequence[Quantizer | None]) -> bool:
    """Whether all of these give codes that the kernels multiply faster than floats."""
    return native.instruction_set_name() != "generic" and all(
        q is not None
        and not q.calibrating
        # Wide codes are as slow as floats without VNNI.
        and q.max_code <= NARROW
        and type(q).fake_quantize is Quantizer.fake_quantize
        for q in quantizers
    )


def quantize_initial(
    hidden: torch.Tensor, quantizers: Sequence[Quantizer | None]
) -> torch.Tensor | None:
    """Quantize initial hidden states ``(D, B, H)``, each direction by its own quantizer."""
    if all(quantizer is None for quantizer in quantizers):
        return hidden
    return torch.stack(
        [h if q is None else q.quantize(h) for q, h in zip(quantizers, hidden, strict=True)]
    )


def wants_hidden_states(quantizers: Sequence[Quantizer | None]) -> bool:
    """Whether a quantizer takes note of the hidden states of this call."""
    return any(
        q is not None
        and (
            q.watcher is not None
            or q.calibrating
            or (q.training and type(q).update is not Quantizer.update)
        )
        for q in quantizers
    )


def run_fused(
    x: torch.Tensor,
    weights: Sequence[Sequence[torch.Tensor]],
    weight_quantizers: Sequence[Sequence[Quantizer | None]],
    states: tuple[torch.Tensor | None, torch.Tensor | None],
    hidden: Sequence[Quantizer | None],
    form: HiddenForm,
    readers: Sequence[Quantizer | None],
    lengths: torch.Tensor | None,
    quantized_output: bool,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor]:
    """Run one layer.

    Args:
        x: ``(T, B, I)``, quantized already where it is to be.
        weights: as of ``torch.lstm`` a direction, before quantization.
        weight_quantizers: of ``weight_ih`` and ``weight_hh`` a direction.
        states: as of `lstm_layer`.
        hidden: quantizers of the hidden states, a direction.
        form: how these quantize.
        readers: what quantized ``x``; empty where it is not on a grid.
        lengths: ``(B,)`` int64 or None.
        quantized_output: whether to put out hidden states after quantization.

    Returns:
        What `lstm_layer` does.
    """
    weight_ih, weight_hh, *biases = zip(*weights, strict=True)
    quantizers_ih, quantizers_hh = zip(*weight_quantizers, strict=True)
    bias = torch.stack(biases[0]) + torch.stack(biases[1]) if biases else None
    fused_ih = fuse_weights(weight_ih, quantizers_ih, all_narrow(quantizers_ih))
    on_codes = all_narrow(hidden) and all_narrow(quantizers_hh)
    fused_hh = fuse_weights(weight_hh, quantizers_hh, on_codes)
    layer = Layer(
        form.max_codes,
        form.rules,
        lengths,
        quantized_output,
        wants_hidden_states(hidden),
        input_codes(readers, fused_ih) if readers else None,
        fused_hh.codes,
    )
    return lstm_layer(x, fused_ih.tensor, fused_hh.tensor, bias, *states, form.clips, layer)
