"""What a checkpoint says of the scheme that it was trained with, and whether a training may go on.

Each quantized layer writes a description of its quantizers into the metadata that PyTorch keeps with
a ``state_dict``. No tensor is added: checkpoints stay loadable everywhere, and averaging them sees
nothing of it. ESPnet's ``--init_param`` merges a checkpoint into the model's own state, whose
metadata are the model's, so a start from another scheme is no resumption and is not asked.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from espnet_quant4.nn.quantized_module import RECORD, QuantizedModule, is_quantizer_key
from espnet_quant4.scheme import SchemeError, apply_scheme, bundled_names

Record = dict[str, str]

_SHOWN = 4
IN_FLOAT = "float"
UNKNOWN = "a scheme of your own"


def recorded_scheme(state: Mapping[str, Any]) -> Record | None:
    """Return the description of each quantized tensor that a state was saved with.

    Args:
        state: a ``state_dict``, also one that was saved and loaded.

    Returns:
        Such as ``{"encoder.enc.0.nbrnn.l0.input": "pact+, 8 bits, 1 clip"}``; None where nothing is
        recorded: in a state from before there were records, an average, and a state of other layers.
    """
    metadata: Mapping[str, Any] = getattr(state, "_metadata", None) or {}
    layers = {place: m[RECORD] for place, m in metadata.items() if RECORD in m}
    if not layers:
        return None
    return {
        ".".join(filter(None, (place, tensor))): description
        for place, tensors in layers.items()
        for tensor, description in tensors.items()
    }


def check_resumed_scheme(model: torch.nn.Module, checkpoint: Path) -> None:
    """Refuse a checkpoint of a training with another scheme than the model's.

    Args:
        model: as it was built for the training that goes on.
        checkpoint: ESPnet's ``checkpoint.pth``. One that cannot be read is left to ESPnet, which says
            so itself.

    Raises:
        SchemeError: names both schemes, and the tensors that they quantize differently.
    """
    present = recorded_scheme(model.state_dict())
    if present is None:
        return
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        state = content["model"]
    except (OSError, RuntimeError, pickle.UnpicklingError, KeyError, TypeError):
        return
    recorded = recorded_scheme(state)
    if recorded is None:
        there = {_tensor_of(key) for key in state if is_quantizer_key(key)}
        if there == set(present):
            return
        # All that is known is what is quantized.
        recorded = {name: present.get(name, "quantized") for name in there}
    if recorded != present:
        raise SchemeError(_refusal(model, checkpoint, recorded, present))


def _tensor_of(key: str) -> str:
    """Return the tensor that an entry of a quantizer's state is for."""
    return key.rpartition(".")[0].replace(".quantizers.", ".").removeprefix("quantizers.")


def _refusal(model: torch.nn.Module, checkpoint: Path, recorded: Record, present: Record) -> str:
    differing = sorted(
        name for name in recorded.keys() | present.keys() if recorded.get(name) != present.get(name)
    )
    examples = "; ".join(
        f"{name}: {recorded.get(name, IN_FLOAT)} there, {present.get(name, IN_FLOAT)} here"
        for name in differing[:_SHOWN]
    )
    more = f"; and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
    return (
        f"{checkpoint} was trained with {name_of_scheme(model, recorded)}, and this training is to "
        f"have {name_of_scheme(model, present)}. {len(differing)} tensors differ: {examples}{more}. "
        "A training goes on only with its own scheme. Give that scheme; or start a training of its "
        "own from this checkpoint's parameters, with another output folder (--output_dir, or "
        "--asr_tag and --lm_tag of recipes) and --init_param."
    )


def name_of_scheme(model: torch.nn.Module, record: Record) -> str:
    """Return what a scheme is called that gives a record, such as ``scheme tailored``.

    Args:
        model: one that the scheme is for; not changed.
        record: as of `recorded_scheme`.
    """
    if not record:
        return f"no scheme ({IN_FLOAT})"
    bare = copy.deepcopy(model)
    for name in bundled_names():
        for module in bare.modules():
            if isinstance(module, QuantizedModule):
                module.quantizers = torch.nn.ModuleDict()
        try:
            apply_scheme(bare, name)
        except SchemeError:
            continue
        if recorded_scheme(bare.state_dict()) == record:
            return f"scheme {name}"
    bits = sorted({part for text in record.values() for part in text.split(", ") if "bits" in part})
    return f"{UNKNOWN} ({len(record)} tensors, {', '.join(bits) or 'bits not recorded'})"
