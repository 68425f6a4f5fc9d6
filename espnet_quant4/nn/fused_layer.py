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
from espnet_quant4.kernels.fused_lstm import HiddenCodes, InputCodes, Layer, lstm_layer
from espnet_quant4.kernels.gradient_rules import GradientRule
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
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch._C._functorch.peek_interpreter_stack()
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
        clips.append(clip if isinstance(clip, torch.Tensor) else torch.tensor([clip]))
        max_codes.append(1 if quantizer is None else quantizer.max_code)
        rules.append(rule)
    return HiddenForm(torch.cat(clips), tuple(max_codes), tuple(rules))


def input_codes(
    readers: Sequence[Quantizer | None],
    weights: Sequence[torch.Tensor],
    quantizers: Sequence[Quantizer | None],
) -> InputCodes | None:
    """Return how the input product is computed on codes; None where floats are better, or needed.

    Args:
        readers: what quantized the input: one, or one for each equal part of its columns.
        weights: ``weight_ih`` of each direction ``(4 * H, I)``, before quantization.
        quantizers: of these.
    """
    reader = readers[0]
    if reader is None or not all_narrow((*readers, *quantizers)):
        return None
    clips = {float(q.clip().detach()) for q in readers if q is not None}
    codes = {q.max_code for q in readers if q is not None}
    if len(clips) > 1 or len(codes) > 1:
        return None
    return InputCodes(clips.pop(), reader.max_code, *_weight_codes(weights, quantizers))


def hidden_codes(
    hidden: Sequence[Quantizer | None],
    weights: Sequence[torch.Tensor],
    quantizers: Sequence[Quantizer | None],
) -> HiddenCodes | None:
    """Return how the recurrent product is computed on codes; None as for `input_codes`.

    Args:
        hidden: quantizers of the hidden states of each direction.
        weights: ``weight_hh`` of each direction ``(4 * H, H)``, before quantization.
        quantizers: of these.
    """
    if not all_narrow((*hidden, *quantizers)):
        return None
    return HiddenCodes(*_weight_codes(weights, quantizers))


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


def _weight_codes(
    weights: Sequence[torch.Tensor], quantizers: Sequence[Quantizer | None]
) -> tuple[torch.Tensor, int]:
    """Return the step of each row, of all directions, and the largest code."""
    used = [q for q in quantizers if q is not None]
    with torch.no_grad():
        scales = [
            q.scale(weight).repeat_interleave(weight.size(0) // q.groups)
            for q, weight in zip(used, weights, strict=True)
        ]
    return torch.cat(scales), max(q.max_code for q in used)


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
        q is not None and (q.calibrating or (q.training and type(q).update is not Quantizer.update))
        for q in quantizers
    )


def run_fused(
    x: torch.Tensor,
    weights: Sequence[Sequence[torch.Tensor]],
    states: tuple[torch.Tensor | None, torch.Tensor | None],
    form: HiddenForm,
    lengths: torch.Tensor | None,
    quantized_output: bool,
    observed: bool,
    codes: tuple[InputCodes | None, HiddenCodes | None] = (None, None),
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor]:
    """Run one layer; arguments as of `lstm_layer`, ``weights`` as of ``torch.lstm`` a direction.

    Returns:
        What `lstm_layer` does.
    """
    weight_ih, weight_hh, *biases = zip(*weights, strict=True)
    bias = torch.stack(biases[0]) + torch.stack(biases[1]) if biases else None
    layer = Layer(form.max_codes, form.rules, lengths, quantized_output, observed, *codes)
    return lstm_layer(
        x, torch.stack(weight_ih), torch.stack(weight_hh), bias, *states, form.clips, layer
    )
