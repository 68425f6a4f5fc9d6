"""Checkpoints: what a file of parameters holds, and whether it is what a model needs, and no more.

ESPnet loads with ``strict=False`` or fills up what a file lacks with what a model was built with,
so a wrong file gives a model with random weights. Everything here that loads a checkpoint accounts
for every key.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from espnet_quant4.nn.quantized_module import is_quantizer_key
from espnet_quant4.packed_models import describe_packed
from espnet_quant4.quantizers import Quantizer

State = dict[str, torch.Tensor]

#: What the names of losses' tensors begin with; they mean nothing after training.
TRAINING_ONLY = "criterion_"

# Whose buffers, such as filter banks and statistics, are made from the configuration.
_FROM_CONFIGURATION = ("frontend.", "normalize.")
# Beside parameters, the state of a training holds these.
_TRAINER_KEYS = {"optimizers", "reporter", "optimizer_states", "pytorch-lightning_version"}
# Under these DeepSpeed and Lightning put the parameters.
_WRAPPERS = ("module", "state_dict")
_LISTED = 6
_BEGINNINGS = (
    (b"version https://git-lfs", "is a pointer of git-lfs; fetch the file itself by: git lfs pull"),
    (b"<!doctype html", "is a web page; download the file behind it again"),
    (b"<html", "is a web page; download the file behind it again"),
)


class CheckpointError(ValueError):
    """A file that is no checkpoint, or one of another model; says which, and what to give."""


def read_checkpoint(path: str | Path) -> State:
    """Return the parameters and buffers that a file holds, on the CPU.

    Args:
        path: what ``torch.save(model.state_dict(), path)`` wrote, such as ESPnet's
            ``valid.loss.ave.pth``. Nothing but tensors is unpickled.

    Raises:
        CheckpointError: for any other file.
    """
    path = Path(path)
    _check_file(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Of a broken file PyTorch raises one of half a dozen kinds.
        raise CheckpointError(f"{path}: {_reason(path, error)}{_others(path)}") from error
    return _parameters(path, content)


def load_checkpoint(
    model: torch.nn.Module,
    path: str | Path,
    of: str = "the model",
    needs_quantizers: bool = True,
) -> None:
    """Load all of a trained model, in place.

    Args:
        model: on any device.
        path: its checkpoint.
        of: where the model comes from, for messages, such as ``the model of exp/config.yaml``.
        needs_quantizers: False where clips that the checkpoint lacks may stay as they are.

    Raises:
        CheckpointError: for a file that is no checkpoint, for keys that are missing, unexpected or
            of another shape, for values that are not finite, and where one side is quantized and
            the other not.
    """
    state = read_checkpoint(path)
    found = compare(model, state)
    if found.is_wrong:
        raise CheckpointError(
            f"{path}: not the parameters of {of}: {found}. Give checkpoint and config.yaml of one "
            "training."
        )
    quantizers = _quantizers_differ(model, state, needs_quantizers)
    if quantizers:
        raise CheckpointError(f"{path}: {quantizers}")
    check_values(model, state, path)
    model.load_state_dict(state, strict=False)


@dataclass
class Comparison:
    """How the keys of a checkpoint and a model differ, quantizers and losses aside.

    Attributes:
        missing: what the model has and the checkpoint has not.
        unexpected: what the checkpoint has and the model has not.
        shapes: name, shape in the checkpoint, shape in the model.
        untied: two names of one tensor of the model, which are two in the checkpoint.
    """

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    shapes: list[str] = field(default_factory=list)
    untied: list[str] = field(default_factory=list)

    @property
    def is_wrong(self) -> bool:
        """Whether there is any difference."""
        return bool(self.missing or self.unexpected or self.shapes or self.untied)

    def __str__(self) -> str:
        parts = (
            (self.missing, "missing"),
            (self.unexpected, "not in the model"),
            (self.shapes, "of another shape"),
            (self.untied, "one tensor in the model and two in the file"),
        )
        return "; ".join(f"{len(names)} {what}: {listed(names)}" for names, what in parts if names)


def compare(model: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> Comparison:
    """Compare the keys and shapes of a model and a checkpoint; see `Comparison`."""
    wanted = _without_quantizers(model.state_dict())
    given = _without_quantizers(state)
    shared = [name for name in wanted if name in given]
    configured = {name for name, _ in model.named_buffers() if name.startswith(_FROM_CONFIGURATION)}
    return Comparison(
        missing=[name for name in wanted if name not in given and name not in configured],
        unexpected=[name for name in given if name not in wanted],
        shapes=[
            f"{name} ({_size(given[name])} here, {_size(wanted[name])} in the model)"
            for name in shared
            if given[name].shape != wanted[name].shape
        ],
        untied=[
            f"{first} and {second}"
            for first, second in tied_names(model)
            if first in given and second in given and not _same(given[first], given[second])
        ],
    )


def tied_names(model: torch.nn.Module) -> list[tuple[str, str]]:
    """Return the first and each further name of the parameters that have several."""
    first: dict[int, str] = {}
    found = []
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if first.setdefault(id(parameter), name) != name:
            found.append((first[id(parameter)], name))
    return found


def listed(names: Iterable[str]) -> str:
    """Return names for a message; of many the first few and how many more there are."""
    names = list(names)
    shown = ", ".join(names[:_LISTED])
    return shown if len(names) <= _LISTED else f"{shown} and {len(names) - _LISTED} more"


# ---- reading a file ------------------------------------------------------------------------------


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise CheckpointError(f"{path}: is a folder; give a checkpoint.{_others(path / 'x')}")
    if not path.exists():
        raise CheckpointError(f"{path}: no such file.{_others(path)}")
    with path.open("rb") as file:
        beginning = file.read(64)
    if not beginning:
        raise CheckpointError(f"{path}: is empty.{_others(path)}")
    for start, what in _BEGINNINGS:
        if beginning.lstrip().lower().startswith(start):
            raise CheckpointError(f"{path}: {what}.")
    packed = describe_packed(path)
    if packed:
        raise CheckpointError(f"{path}: {packed}")
    if b'{"__metadata__"' in beginning:
        raise CheckpointError(
            f"{path}: is in the layout of safetensors, such as an INT4 file (espnet-quant4 info "
            f"{path}); a checkpoint that training wrote is wanted here.{_others(path)}"
        )


def _reason(path: Path, error: Exception) -> str:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, OSError):
        return f"{error.strerror or first}."
    with path.open("rb") as file:
        is_archive = file.read(2) == b"PK"
    if isinstance(error, pickle.UnpicklingError) and "Unsupported global" in str(error):
        return (
            "holds Python objects beside tensors, which are not unpickled since they could run "
            "code. Save model.state_dict(), not the model."
        )
    if is_archive:
        return f"is cut off or damaged ({first}). Copy it again."
    return "not a file of torch.save, or one that is cut off."


def _others(path: Path) -> str:
    """Return a sentence that names the checkpoints of models beside a file."""
    folder = path.parent
    names = sorted({p.name for p in folder.glob("*.pth")} - {"checkpoint.pth", path.name})
    return f" In {folder} there are: {listed(names)}." if names else ""


def _parameters(path: Path, content: Any) -> State:
    """Return what of a file's content is a model's state."""
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            if _TRAINER_KEYS & content.keys():
                break
            content = content[wrapper]
    if isinstance(content, dict) and _TRAINER_KEYS & content.keys():
        raise CheckpointError(
            f"{path}: is the state of a training ({listed(map(str, content))}), for resuming it; "
            f"give a model, such as valid.loss.ave.pth.{_others(path)}"
        )
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__}; a checkpoint holds tensors by name, as "
            f"torch.save(model.state_dict(), ...) writes them.{_others(path)}"
        )
    others = [
        f"{name} ({type(value).__name__})"
        for name, value in content.items()
        if not (isinstance(name, str) and isinstance(value, torch.Tensor))
    ]
    if others or not content:
        what = f"holds what are no tensors: {listed(others)}" if others else "holds no parameters"
        raise CheckpointError(f"{path}: {what}; give a model's checkpoint.{_others(path)}")
    return dict(content)


# ---- comparing -----------------------------------------------------------------------------------


def _without_quantizers(state: Mapping[str, torch.Tensor]) -> State:
    return {
        name: value
        for name, value in state.items()
        if not is_quantizer_key(name) and not name.startswith(TRAINING_ONLY)
    }


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.nan_to_num(), other.nan_to_num())  # NaN is refused by its own name


def _size(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"


def _quantizers_differ(
    model: torch.nn.Module, state: Mapping[str, torch.Tensor], is_needed: bool
) -> str:
    """Return what is wrong with a checkpoint's quantizers; empty where they are the model's."""
    wanted = {name: value for name, value in model.state_dict().items() if is_quantizer_key(name)}
    given = {name: value for name, value in state.items() if is_quantizer_key(name)}
    if given and not wanted:
        return (
            "is a quantized checkpoint, and the configuration is of a float model. Give the "
            "config.yaml that the training wrote beside it, or name its scheme (model_conf: "
            "scheme; of a language model lm_conf: scheme)."
        )
    if not given:
        needing = [
            f"{name}.clip_value".replace(".quantizers", "")
            for name, module in model.named_modules()
            if isinstance(module, Quantizer)
            and module.role == "activation"
            and not module.is_calibrated
        ]
        if not needing or not is_needed:
            return ""
        return (
            f"is a float checkpoint, and the configuration has a scheme: {len(needing)} clips of "
            f"activations are missing: {listed(needing)}. Calibrate first (espnet-quant4 calibrate "
            "--init_param), or give the checkpoint of quantization-aware training."
        )
    differing = [
        *(f"{name} (missing)" for name in wanted if name not in given),
        *(f"{name} (not in the model)" for name in given if name not in wanted),
        *(
            f"{name} ({_size(given[name])} here, {_size(wanted[name])} in the model)"
            for name in wanted
            if name in given and given[name].shape != wanted[name].shape
        ),
    ]
    if not differing:
        return ""
    return (
        f"is of a model with another scheme; {len(differing)} tensors of quantizers differ: "
        f"{listed(differing)}. Give checkpoint and config.yaml of one training."
    )


def check_values(model: torch.nn.Module, state: Mapping[str, torch.Tensor], path: Any) -> None:
    """Refuse NaN anywhere, and infinity in what is trained."""
    trained = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    wrong = []
    for name, value in state.items():
        if not value.is_floating_point() or name.startswith(TRAINING_ONLY):
            continue
        bad = ~value.isfinite() if name in trained or is_quantizer_key(name) else value.isnan()
        if bool(bad.any()):
            wrong.append(f"{name} ({int(bad.sum())} of {value.numel()})")
    if wrong:
        raise CheckpointError(
            f"{path}: {len(wrong)} tensors hold NaN or infinite values: {listed(wrong)}. The "
            "training diverged; give an earlier epoch's checkpoint."
        )
