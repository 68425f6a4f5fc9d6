"""``--init_param FILE:FROM:TO:EXCLUDED``: parameters to start a training or a calibration from.

ESPnet fills up what the file lacks with the model's random parameters and says nothing. Here the
names of what was set are returned, so that the caller can say what stays random.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from espnet_quant4.checkpoints import (
    TRAINING_ONLY,
    CheckpointError,
    State,
    check_values,
    compare,
    listed,
    read_checkpoint,
    tied_names,
)
from espnet_quant4.nn.quantized_module import is_quantizer_key


@dataclass(frozen=True)
class Source:
    """What ``FILE:FROM:TO:EXCLUDED`` names.

    Attributes:
        path: the checkpoint.
        taken: part of the checkpoint, such as ``encoder``; empty for all of it.
        put: part of the model that it goes to; empty for the model itself.
        excluded: beginnings of names in the checkpoint that are left out.
    """

    path: str
    taken: str
    put: str
    excluded: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Source:
        """Read ``FILE``, ``FILE:FROM``, ``FILE:FROM:TO`` or ``FILE:FROM:TO:EXCLUDED,EXCLUDED``.

        Raises:
            CheckpointError: for more parts.
        """
        parts = text.split(":")
        if len(parts) > 4 or not parts[0]:
            raise CheckpointError(f"{text!r}: valid is FILE or FILE:FROM:TO:EXCLUDED.")
        path, taken, put, excluded = [*parts, "", "", ""][:4]
        names = tuple(name for name in excluded.split(",") if name)
        return cls(path, taken.strip("."), put.strip("."), names)

    def read(self) -> State:
        """Return the chosen part of the checkpoint, by the names that it has below ``taken``.

        Raises:
            CheckpointError: for a file that is no checkpoint, and where nothing is left.
        """
        state = read_checkpoint(self.path)
        kept = {name: v for name, v in state.items() if not name.startswith(self.excluded)}
        if self.taken:
            start = f"{self.taken}."
            kept = {k.removeprefix(start): v for k, v in kept.items() if k.startswith(start)}
        if not kept:
            raise CheckpointError(
                f"{self.path}: nothing in it is chosen by {self.taken or 'all'!r} without "
                f"{list(self.excluded)}; its parts are: {listed(_parts(state))}."
            )
        return kept


def load_initial_parameters(
    model: torch.nn.Module, text: str, ignore_mismatch: bool = False
) -> set[str]:
    """Put a checkpoint, or a part of it, into a model, in place.

    Quantizers may differ: a float checkpoint starts a quantized model, and one scheme's another's.

    Args:
        model: or a part of one.
        text: ``FILE:FROM:TO:EXCLUDED``; see `Source`.
        ignore_mismatch: whether names that the model lacks, and other shapes, are passed over with
            a warning, as by ESPnet's ``--ignore_init_mismatch``.

    Returns:
        The names in the model of what was set.

    Raises:
        CheckpointError: for a file that is no checkpoint, a part that there is not, names that the
            model lacks, other shapes, and values that are not finite.
    """
    source = Source.parse(text)
    part = _part(model, source)
    state = source.read()
    found = compare(part, state)
    # What stays as it was is the caller's to judge, who may load several files.
    found.missing.clear()
    if found.is_wrong and not ignore_mismatch:
        raise CheckpointError(
            f"{text}: does not fit {source.put or type(model).__name__}: {found}. Name the parts "
            "to take as FILE:FROM:TO:EXCLUDED, or pass over what does not fit "
            "(--ignore_init_mismatch true)."
        )
    if found.is_wrong:
        logging.warning(f"{text}: passed over: {found}")
        own = part.state_dict()
        state = {
            name: value
            for name, value in state.items()
            if is_quantizer_key(name) or (name in own and own[name].shape == value.shape)
        }
    check_values(part, state, source.path)
    part.load_state_dict(state, strict=False)
    own = part.state_dict()
    start = f"{source.put}." if source.put else ""
    return {f"{start}{name}" for name in state if name in own}


def still_random(model: torch.nn.Module, loaded: Iterable[str]) -> list[str]:
    """Return the names of a model's parameters that no checkpoint has set.

    Quantizers do not count, nor do losses.
    """
    known = set(loaded)
    for first, second in tied_names(model):
        if first in known or second in known:
            known |= {first, second}
    return [
        name
        for name, _ in model.named_parameters()
        if name not in known and not is_quantizer_key(name) and not name.startswith(TRAINING_ONLY)
    ]


def _part(model: torch.nn.Module, source: Source) -> torch.nn.Module:
    try:
        return model.get_submodule(source.put)
    except AttributeError as error:
        names = [name for name, _ in model.named_children()]
        raise CheckpointError(
            f"{source.path}: goes to {source.put!r}, which the model has not; its parts are: "
            f"{listed(names)}."
        ) from error


def _parts(state: State) -> list[str]:
    return list(dict.fromkeys(name.partition(".")[0] for name in state))
