"""What the ``.int4`` files of all tasks share: codes, configuration, feature statistics."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata as packages
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espnet_quant4.checkpoints import TRAINING_ONLY, listed
from espnet_quant4.int4 import file_format
from espnet_quant4.int4.convert import convert, convert_structure, describe
from espnet_quant4.int4.file_format import Int4FileError
from espnet_quant4.int4.int4_module import Description, Int4Module

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
        tensors: by name, of the converted model and of what else it needs.
        config: what of the training's configuration builds the model.
        descriptions: what is quantized how.
        rebuilt: tensors that follow from the configuration and are not in the file.
    """

    path: Path
    tensors: dict[str, torch.Tensor]
    config: dict[str, Any]
    descriptions: dict[str, Description]
    rebuilt: list[str]


def write_model(
    path: str | Path,
    task: str,
    model: torch.nn.Module,
    config: Mapping[str, Any],
    others: Mapping[str, torch.Tensor],
    build: Callable[[Mapping[str, Any], Mapping[str, torch.Tensor], Path], torch.nn.Module],
) -> int:
    """Write a model.

    Args:
        path: where to.
        task: ``asr``, ``hybrid`` or ``lm``.
        model: quantized or converted.
        config: all that builds it, but for files.
        others: further tensors.
        build: builds the model from the configuration and the tensors, with a folder for files.

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
    with tempfile.TemporaryDirectory() as folder:
        fresh = build(config, tensors, Path(folder))
        own = {name for name, _ in fresh.named_buffers()} - {
            name for name, _ in fresh.named_parameters()
        }
        rebuilt = [
            name
            for name, tensor in fresh.state_dict().items()
            if name in own and name in tensors and name.startswith("frontend.")
            and torch.equal(tensor, tensors[name])
        ]  # fmt: skip
    _check_that_it_fits(fresh, tensors, descriptions, others)
    metadata["rebuilt"] = json.dumps(rebuilt)
    left_out = {*rebuilt, *_tied(descriptions)}
    kept = {name: tensor for name, tensor in tensors.items() if name not in left_out}
    # What was published in half precision loses nothing by it.
    halves = [name for name, tensor in kept.items() if _fits_half(tensor)]
    metadata["halves"] = json.dumps(halves)
    kept.update({name: kept[name].half() for name in halves})
    return file_format.write(path, kept, metadata)


def _tied(descriptions: Mapping[str, Description]) -> dict[str, str]:
    """Return the tensors that are other tensors too, and which."""
    found = {}
    for name, description in descriptions.items():
        if "tied_to" in description:
            found[name] = description["tied_to"]
            if description["role"] == "weight":
                found[f"{name}_scale"] = f"{description['tied_to']}_scale"
    return found


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


def read_config(metadata: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Description]]:
    """Return the configuration and the descriptions of quantized tensors in a file's metadata."""
    return json.loads(metadata["config"]), json.loads(metadata["quantized"])


def read_task(metadata: Mapping[str, str]) -> str:
    """Return a file's task; the first files did not say that theirs is ``asr``."""
    return metadata.get("task", "asr")


def read_model(path: str | Path, task: str) -> StoredModel:
    """Read a file.

    Raises:
        Int4FileError: for a file that cannot be read, or is of another task.
    """
    tensors, metadata = file_format.read(path)
    found = read_task(metadata)
    if found != task:
        reader = _READERS.get(found, "a newer espnet_quant4").replace("FILE", str(path))
        raise Int4FileError(f"{path}: holds a model of task {found}, not {task}. Use: {reader}")
    for name in json.loads(metadata["halves"]):
        tensors[name] = tensors[name].float()
    config, descriptions = read_config(metadata)
    return StoredModel(Path(path), tensors, config, descriptions, json.loads(metadata["rebuilt"]))


def fill(model: torch.nn.Module, stored: StoredModel, others: tuple[str, ...] = ()) -> None:
    """Put a file's tensors into a model that was built from its configuration, in place.

    Args:
        model: its quantized layers are replaced.
        stored: the file.
        others: names of tensors that are not the model's.

    Raises:
        Int4FileError: where the two do not fit.
    """
    # In place: ESPnet's search holds the decoder and the joint network.
    convert_structure(model, stored.descriptions)
    loadable = {name: tensor for name, tensor in stored.tensors.items() if name not in others}
    for name, other in _tied(stored.descriptions).items():
        if other in loadable:
            loadable[name] = loadable[other]
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


def with_statistics(
    config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], folder: Path
) -> dict[str, Any]:
    """Return a configuration for ESPnet in which feature statistics are a file made from the tensors.

    Args:
        config: of a file.
        tensors: of the file.
        folder: for the statistics; ESPnet reads them while it builds the model.
    """
    prepared: dict[str, Any] = json.loads(json.dumps(config))
    prepared["init"] = None
    if prepared.get("normalize") == "global_mvn":
        mean, std = tensors["normalize.mean"].double(), tensors["normalize.std"].double()
        statistics = folder / "feats_stats.npz"
        np.savez(
            statistics,
            count=np.array(1.0),
            sum=mean.float().numpy(),
            sum_square=(std.square() + mean.square()).float().numpy(),
        )
        prepared["normalize_conf"] = {
            **(prepared.get("normalize_conf") or {}),
            "stats_file": str(statistics),
        }
    return prepared
