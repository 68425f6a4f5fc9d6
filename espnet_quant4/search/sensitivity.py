"""What a trained model loses when one of its weights gets other bits.

One tensor at a time, all others as the model's scheme has them, by the model's own loss: the
measured form of what Dong et al. ("HAWQ", 2019) estimate by second derivatives. On training data,
where a trained model's gradient is near 0, so that the loss rises with the square of an error; on
other data it rises or falls with the error itself, in a direction that these few utterances happen to
have. Losses are taken to add up over tensors, which holds the better the smaller they are.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.optimize import isotonic_regression

from espnet_quant4.report.experiment.tensors import quantized_weights
from espnet_quant4.scheme import Scheme

#: A layer as schemes name it, and its tensor: ("encoder.enc.0.nbrnn.l0", "weight_ih").
Site = tuple[str, str]


@dataclass(frozen=True)
class Measured:
    """Losses of one weight.

    Attributes:
        parameters: number of weights, of both directions.
        bits: that the model's scheme gives it.
        losses: by width, mean over the batches.
    """

    parameters: int
    bits: int
    losses: dict[int, float]


def weight_sites(model: torch.nn.Module) -> dict[Site, tuple[int, int]]:
    """Return number of weights and bits of each quantized weight, both directions of a layer as one."""
    found: dict[Site, tuple[int, int]] = {}
    for name, weight, quantizer in quantized_weights(model):
        layer, tensor = name.rsplit(".", 1)
        site = (layer.removesuffix("_reverse"), tensor)
        count, _ = found.get(site, (0, 0))
        found[site] = (count + weight.numel(), quantizer.bits)
    return found


def with_widths(scheme: Mapping[str, Any], widths: Mapping[Site, int]) -> dict[str, Any]:
    """Return a scheme in which some weights have other bits: an override more for each layer."""
    result = Scheme.load(scheme).to_dict()
    of_layer: dict[str, dict[str, Any]] = {}
    for (layer, tensor), bits in widths.items():
        of_layer.setdefault(layer, {})[tensor] = {"bits": bits}
    overrides = [{"pattern": layer, **tensors} for layer, tensors in of_layer.items()]
    result["overrides"] = [*result.get("overrides", []), *overrides]
    return result


def mean_loss(model: torch.nn.Module, batches: Iterable[Mapping[str, Any]]) -> float:
    """Return a model's loss in evaluation, weighted as ESPnet weighs batches."""
    model.eval()
    total = weights = 0.0
    with torch.no_grad():
        for batch in batches:
            loss, _, weight = model(**batch)
            total += float(loss) * float(weight)
            weights += float(weight)
    if not weights:
        raise ValueError("no batch to measure a loss on")
    return total / weights


def measure(
    build: Callable[[Mapping[str, Any]], torch.nn.Module],
    scheme: Mapping[str, Any],
    batches: Sequence[Mapping[str, Any]],
    widths: Sequence[int],
    known: Mapping[Site, Mapping[int, float]] | None = None,
    on_measured: Callable[[Site, int, float], None] | None = None,
) -> dict[Site, Measured]:
    """Measure each weight at each width.

    Args:
        build: makes the trained model with another scheme.
        scheme: of the model.
        batches: arguments of the model.
        widths: to measure, besides those that the scheme has.
        known: losses that need not be measured again.
        on_measured: called with each new loss.
    """
    model = build(scheme)
    sites = weight_sites(model)
    base: float | None = None
    found = {}
    for site, (parameters, bits) in sites.items():
        losses = dict((known or {}).get(site, {}))
        for width in sorted({*widths, bits}):
            if width in losses:
                continue
            if width == bits:
                base = mean_loss(model, batches) if base is None else base
                loss = base
            else:
                loss = mean_loss(build(with_widths(scheme, {site: width})), batches)
            losses[width] = loss
            if on_measured is not None:
                on_measured(site, width, loss)
        found[site] = Measured(parameters, bits, losses)
    return found


def increases(measured: Mapping[Site, Measured]) -> dict[Site, dict[int, float]]:
    """Return what each width costs against the scheme's; more bits never cost more.

    A loss that falls with fewer bits is noise of the data: such neighbours share their mean (isotonic
    regression).
    """
    result = {}
    for site, entry in measured.items():
        widths = sorted(entry.losses)
        rises = [entry.losses[bits] - entry.losses[entry.bits] for bits in widths]
        fitted = isotonic_regression(rises, increasing=False).x
        result[site] = dict(zip(widths, fitted.tolist(), strict=True))
    return result


def builder(
    task: Any, args: Namespace, state: Mapping[str, torch.Tensor]
) -> Callable[[Mapping[str, Any]], torch.nn.Module]:
    """Return what builds a trained model with another scheme.

    Args:
        task: ESPnet's class of the task that trained it.
        args: options of the training; ``model_conf: scheme`` is replaced.
        state: of its checkpoint.
    """

    def build(scheme: Mapping[str, Any]) -> torch.nn.Module:
        options = Namespace(**vars(args))
        options.model_conf = {**args.model_conf, "scheme": dict(scheme)}
        model: torch.nn.Module = task.build_model(options)
        model.load_state_dict(state)
        return model.eval()

    return build
