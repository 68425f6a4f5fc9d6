"""Batches of an experiment's training or validation data, or of other data of the same form.

ESPnet2's configurations name files of data, ESPnet3's the classes of a recipe that read them.
"""

from __future__ import annotations

import copy
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from espnet_quant4.report.experiment.error import ReportError

# Utterances a batch.
BATCH_SIZE = 4


class Data(Protocol):
    """What batches are read from."""

    @property
    def names(self) -> list[str]:
        """What it is read from, as a user knows it."""

    def missing(self) -> list[str]:
        """Which of them are not there."""

    def batches(self, task: Any, args: Namespace, number: int) -> Iterator[dict[str, Any]]:
        """Yield the first batches; see `batches`."""


@dataclass(frozen=True)
class Files:
    """ESPnet2's data.

    Attributes:
        entries: ``(path, name, type)``, as of ``--valid_data_path_and_name_and_type``.
    """

    entries: tuple[tuple[str, ...], ...]

    @property
    def names(self) -> list[str]:
        return [path for path, *_ in self.entries]

    def missing(self) -> list[str]:
        return [path for path in self.names if not Path(path).exists()]

    def batches(self, task: Any, args: Namespace, number: int) -> Iterator[dict[str, Any]]:
        from espnet2.train.distributed_utils import DistributedOption

        args = copy.copy(args)
        args.valid_data_path_and_name_and_type = list(self.entries)
        # Without the files of lengths that a training has: any list of utterances will do.
        args.valid_shape_file = [self.names[0]]
        args.valid_batch_type, args.valid_batch_size = "unsorted", BATCH_SIZE
        args.valid_iterator_type = "sequence"
        args.valid_max_cache_size = 0.0
        args.drop_last_iter = False
        args.num_workers = args.ngpu = 0
        option = DistributedOption(distributed=False, ngpu=0)
        factory = task.build_iter_factory(args=args, distributed_option=option, mode="valid")
        iterator = iter(factory.build_iter(1, shuffle=True))
        for _ in range(number):
            entry = next(iterator, None)
            if entry is None:
                return
            yield entry[1]


@dataclass(frozen=True)
class RecipeParts:
    """ESPnet3's data: parts of a corpus, read by the classes in a recipe's folder ``dataset``.

    Attributes:
        part: ``train`` or ``valid``.
        entries: of ``dataset: PART`` in the configuration.
        recipe: the recipe's folder.
    """

    part: str
    entries: tuple[dict[str, Any], ...]
    recipe: str

    @property
    def names(self) -> list[str]:
        return [f"dataset.{self.part} of config.yaml"]

    def missing(self) -> list[str]:
        module = Path(self.recipe, "dataset", "__init__.py")
        local = [entry for entry in self.entries if not entry.get("data_src")]
        return [str(module)] if local and not module.is_file() else []

    def batches(self, task: Any, args: Namespace, number: int) -> Iterator[dict[str, Any]]:
        import numpy as np
        from espnet3.components.data.data_organizer import DataOrganizer

        # Of one part twice, for it takes no part alone; without what training does to its own.
        data = DataOrganizer(
            train=list(self.entries),
            valid=list(self.entries),
            preprocessor=task.build_preprocess_fn(args, False),
            recipe_dir=self.recipe,
            train_mode=False,
        ).valid
        data.use_espnet_collator = True
        collate = task.build_collate_fn(args, False)
        order = np.random.RandomState(args.seed).permutation(len(data))
        for start in range(0, min(len(order), number * BATCH_SIZE), BATCH_SIZE):
            chosen = order[start : start + BATCH_SIZE]
            yield collate([data[int(index)] for index in chosen])[1]


def data_of(args: Namespace, part: str) -> Data | None:
    """Return the data that a training's configuration names, or None where it names none.

    Args:
        args: the configuration of a training with ESPnet2 or ESPnet3.
        part: ``train`` or ``valid``.
    """
    entries = getattr(args, f"{part}_data_path_and_name_and_type", None)
    if entries:
        return Files(tuple(tuple(entry) for entry in entries))
    dataset = getattr(args, "dataset", None)
    if isinstance(dataset, dict) and dataset.get(part):
        return RecipeParts(part, tuple(dataset[part]), str(dataset.get("recipe_dir") or "."))
    return None


def batches(
    task: Any, args: Namespace, data: Data, number: int, otherwise: str = ""
) -> Iterator[dict[str, Any]]:
    """Yield the first batches in an order shuffled by the training's seed, the same at every call.

    Args:
        task: ESPnet's class of the task.
        args: options of the training; preprocessing is that of its validation.
        data: what to read.
        number: of batches, of 4 utterances each.
        otherwise: what else the user of this command can do about data that cannot be read, a sentence.

    Raises:
        ReportError: where the data cannot be read.
    """
    try:
        yield from data.batches(task, args, number)
    except (OSError, RuntimeError, KeyError, ValueError, ImportError) as error:
        raise ReportError(
            f"{', '.join(data.names)}: cannot be read: {error}. Run the command in the folder where "
            f"the training ran. {otherwise}".rstrip()
        ) from error
