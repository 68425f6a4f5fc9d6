"""What the ``.int4`` files of all tasks share: codes, configuration, feature statistics."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata as packages
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espnet_quant4.checkpoints import TRAINING_ONLY, listed
from espnet_quant4.int4 import file_format
from espnet_quant4.int4.allocation_limit import AllocationLimit
from espnet_quant4.int4.convert import convert, convert_structure, describe
from espnet_quant4.int4.file_content import (
    broken,
    check_config,
    check_tensors,
    read_json_entry,
    tied_tensors,
    widen_halves,
)
from espnet_quant4.int4.file_format import Int4FileError
from espnet_quant4.int4.int4_module import Description, Int4Module
from espnet_quant4.int4.scratch_files import ScratchFiles

# Filter banks and the like, which the configuration gives again.
_REBUILT = "frontend."
# Numbers that building may allocate beside twice those of the file.
_BESIDE = 2**22
# What opens a file of each task.
_READERS = {
    "asr": "espnet-quant4 transcribe FILE",
    "hybrid": "espnet-quant4 hybrid-inference --int4_file FILE",
    "lm": "load(RECOGNIZER, lm_file=FILE) of espnet_quant4.int4.model_file",
}


@dataclass(frozen=True)
class StoredModel:
    """What a file holds.

    Attributes:
        path: of the file.
        task: ``asr``, ``hybrid``, or what a newer version writes.
        tensors: by name, of the converted model and of what else it needs.
        config: what of the training's configuration builds the model.
        descriptions: what is quantized how.
        rebuilt: tensors that follow from the configuration and are not in the file.
        halves: tensors that the file holds in half precision; they are float32 in `tensors`.
        metadata: all of the file's, as they are.
    """

    path: Path
    task: str
    tensors: dict[str, torch.Tensor]
    config: dict[str, Any]
    descriptions: dict[str, Description]
    rebuilt: list[str]
    halves: list[str]
    metadata: dict[str, str]


def write_model(
    path: str | Path,
    task: str,
    model: torch.nn.Module,
    config: Mapping[str, Any],
    others: Mapping[str, torch.Tensor],
    build: Callable[[Mapping[str, Any], Mapping[str, torch.Tensor], ScratchFiles], torch.nn.Module],
) -> int:
    """Write a model.

    Args:
        path: where to.
        task: ``asr``, ``hybrid`` or ``lm``.
        model: quantized or converted.
        config: all that builds it, but for files.
        others: further tensors.
        build: builds the model from the configuration and the tensors, with a place for files.

    Returns:
        The size of the file in bytes.

    Raises:
        ValueError: for a model that cannot be converted, see `convert`, and for one that its
            configuration does not build again.
    """
    if not any(isinstance(module, Int4Module) for module in model.modules()):
        model = convert(model)
    config = dict(config)
    if config.get("normalize_conf"):
        # Its tensors are in the file; the path means nothing elsewhere.
        config["normalize_conf"] = {
            key: value for key, value in config["normalize_conf"].items() if key != "stats_file"
        }
    tensors = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith(TRAINING_ONLY)
    }
    tensors.update(others)
    descriptions = describe(model)
    metadata = {
        "task": task,
        "config": json.dumps(config, separators=(",", ":")),
        "quantized": json.dumps(descriptions, separators=(",", ":")),
        "versions": json.dumps({name: packages.version(name) for name in ("torch", "espnet")}),
    }
    # Filter banks and the like follow from the configuration.
    with ScratchFiles() as files:
        fresh = build(config, tensors, files)
        own = {name for name, _ in fresh.named_buffers()} - {
            name for name, _ in fresh.named_parameters()
        }
        rebuilt = [
            name
            for name, tensor in fresh.state_dict().items()
            if name in own and name in tensors and name.startswith(_REBUILT)
            and torch.equal(tensor, tensors[name])
        ]  # fmt: skip
    _check_that_it_fits(fresh, tensors, descriptions, others)
    metadata["rebuilt"] = json.dumps(rebuilt)
    left_out = {*rebuilt, *tied_tensors(descriptions)}
    kept = {name: tensor for name, tensor in tensors.items() if name not in left_out}
    # What was published in half precision loses nothing by it.
    halves = [name for name, tensor in kept.items() if _fits_half(tensor)]
    metadata["halves"] = json.dumps(halves)
    kept.update({name: kept[name].half() for name in halves})
    return file_format.write(path, kept, metadata)


def _check_that_it_fits(
    fresh: torch.nn.Module,
    tensors: Mapping[str, torch.Tensor],
    descriptions: Mapping[str, Description],
    others: Mapping[str, torch.Tensor],
) -> None:
    """Refuse to write what no reader could load: a model that is not the configuration's."""
    convert_structure(fresh, descriptions)
    wanted = {n: t for n, t in fresh.state_dict().items() if not n.startswith(TRAINING_ONLY)}
    given = {name: tensor for name, tensor in tensors.items() if name not in others}
    differing = [
        *(f"{name} (not in the model)" for name in wanted if name not in given),
        *(f"{name} (not in the configuration's)" for name in given if name not in wanted),
        *(
            f"{name} (another shape)"
            for name, tensor in given.items()
            if name in wanted and wanted[name].shape != tensor.shape
        ),
    ]
    if differing:
        raise ValueError(
            f"the model is not the one that its configuration builds: {listed(differing)}. Give the "
            "configuration that the model was built from."
        )


def _fits_half(tensor: torch.Tensor) -> bool:
    return (
        tensor.dtype == torch.float32
        and tensor.numel() > 64
        and torch.equal(tensor.half().float(), tensor)
    )


def read_any_model(path: str | Path) -> StoredModel:
    """Read a file of any task.

    Raises:
        Int4FileError: for a file that cannot be read, or whose metadata and tensors do not agree.
    """
    path = Path(path)
    tensors, metadata = file_format.read(path)
    config = read_json_entry(path, metadata, "config", dict)
    descriptions = read_json_entry(path, metadata, "quantized", dict)
    rebuilt = read_json_entry(path, metadata, "rebuilt", list)
    if not all(name.startswith(_REBUILT) for name in rebuilt):
        raise broken(path, f"its metadata 'rebuilt' name more than tensors of {_REBUILT}*")
    halves = read_json_entry(path, metadata, "halves", list)
    widen_halves(path, tensors, halves)
    check_config(path, config)
    check_tensors(path, tensors, descriptions)
    # The first files did not say that their task is asr.
    task = metadata.get("task", "asr")
    return StoredModel(path, task, tensors, config, descriptions, rebuilt, halves, metadata)


def read_model(path: str | Path, task: str) -> StoredModel:
    """Read a file.

    Raises:
        Int4FileError: for a file that cannot be read, or is of another task.
    """
    stored = read_any_model(path)
    if stored.task != task:
        reader = _READERS.get(stored.task, "a newer espnet_quant4").replace("FILE", str(path))
        raise Int4FileError(
            f"{path}: holds a model of task {stored.task}, not {task}. Use: {reader}"
        )
    return stored


def allocation_limit(stored: StoredModel) -> AllocationLimit:
    """Return a bound on what building the model of a file may allocate."""
    elements = sum(tensor.numel() for tensor in stored.tensors.values())
    for found in stored.descriptions.values():
        elements += math.prod(found.get("shape", [1]))
    return AllocationLimit(2 * elements + _BESIDE)


@contextmanager
def building(stored: StoredModel) -> Iterator[None]:
    """Turn whatever a file's configuration makes ESPnet raise into an `Int4FileError`."""
    try:
        with allocation_limit(stored):
            yield
    except Int4FileError:
        raise
    except Exception as error:
        # ESPnet answers wrong configurations in many ways: KeyError, TypeError, RuntimeError, ....
        reason = (str(error).strip().splitlines() or [""])[0]
        raise broken(
            stored.path,
            f"its configuration builds no model here ({type(error).__name__}: {reason})",
        ) from error


def fill(
    model: torch.nn.Module,
    stored: StoredModel,
    others: tuple[str, ...] = (),
    dtype: torch.dtype = torch.float32,
) -> None:
    """Put a file's tensors into a model that was built from its configuration, in place.

    Args:
        model: its quantized layers are replaced.
        stored: the file.
        others: names of tensors that are not the model's.
        dtype: of what is in float, and of what INT4 modules put out.

    Raises:
        Int4FileError: where the two do not fit.
    """
    try:
        # In place: ESPnet's search holds the decoder and the joint network.
        convert_structure(model, stored.descriptions)
    except ValueError as error:
        raise broken(stored.path, str(error)) from error
    own = model.state_dict()
    given = {name: tensor for name, tensor in stored.tensors.items() if name not in others}
    for name, other in tied_tensors(stored.descriptions).items():
        if other in given:
            given[name] = given[other]
    loadable = {
        name: _as_in_model(stored, name, tensor, own[name]) if name in own else tensor
        for name, tensor in given.items()
    }
    outcome = model.load_state_dict(loadable, strict=False, assign=True)
    missing = [
        name
        for name in outcome.missing_keys
        if name not in stored.rebuilt and not name.startswith(TRAINING_ONLY)
    ]
    if missing or outcome.unexpected_keys:
        raise Int4FileError(
            f"{stored.path}: its tensors do not fit its configuration: missing {missing}, unexpected "
            f"{outcome.unexpected_keys}. It was written with {packages.version('espnet')} or another "
            "ESPnet; convert the model again with the one that is installed."
        )
    model.to(dtype=dtype)


def _as_in_model(
    stored: StoredModel, name: str, tensor: torch.Tensor, own: torch.Tensor
) -> torch.Tensor:
    both_float = tensor.is_floating_point() and own.is_floating_point()
    if tensor.shape != own.shape or not (both_float or tensor.dtype == own.dtype):
        raise broken(
            stored.path,
            f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}, and the configuration makes "
            f"it {own.dtype} of shape {tuple(own.shape)}",
        )
    return tensor.to(own.dtype)


def with_statistics(
    config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], files: ScratchFiles
) -> dict[str, Any]:
    """Return a configuration for ESPnet in which feature statistics are a file made from the tensors.

    Args:
        config: of a file.
        tensors: of the file.
        files: for the statistics; ESPnet reads them while it builds the model.
    """
    prepared: dict[str, Any] = json.loads(json.dumps(config))
    prepared["init"] = None
    if prepared.get("normalize") == "global_mvn":
        mean, std = tensors["normalize.mean"].double(), tensors["normalize.std"].double()
        statistics = io.BytesIO()
        np.savez(
            statistics,
            count=np.array(1.0),
            sum=mean.float().numpy(),
            sum_square=(std.square() + mean.square()).float().numpy(),
        )
        prepared["normalize_conf"] = {
            **(prepared.get("normalize_conf") or {}),
            "stats_file": str(files.write("feats_stats.npz", statistics.getvalue())),
        }
    return prepared
