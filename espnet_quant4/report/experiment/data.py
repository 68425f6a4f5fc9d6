"""Batches of an experiment's validation data, or of other data of the same form."""

from __future__ import annotations

import copy
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from espnet_quant4.report.experiment.error import ReportError

# Utterances a batch.
BATCH_SIZE = 4
Data = Sequence[Sequence[str]]


def missing_files(data: Data) -> list[str]:
    """Return which files of ``(path, name, type)`` are not there."""
    return [path for path, _, _ in data if not Path(path).exists()]


def batches(
    task: Any, args: Namespace, data: Data, number: int, otherwise: str = ""
) -> Iterator[dict[str, Any]]:
    """Yield the first batches in an order shuffled by the training's seed, the same at every call.

    Args:
        task: ESPnet's class of the task.
        args: options of the training; preprocessing is that of its validation.
        data: ``(path, name, type)``, as of ``--valid_data_path_and_name_and_type``.
        number: of batches, of 4 utterances each.
        otherwise: what else the user of this command can do about data that cannot be read, a sentence.

    Raises:
        ReportError: where the data cannot be read.
    """
    from espnet2.train.distributed_utils import DistributedOption

    args = copy.copy(args)
    args.valid_data_path_and_name_and_type = [tuple(entry) for entry in data]
    # Without the files of lengths that a training has: any list of utterances will do.
    args.valid_shape_file = [data[0][0]]
    args.valid_batch_type, args.valid_batch_size = "unsorted", BATCH_SIZE
    args.valid_iterator_type = "sequence"
    args.valid_max_cache_size = 0.0
    args.drop_last_iter = False
    args.num_workers = args.ngpu = 0
    where = ", ".join(path for path, _, _ in data)
    try:
        option = DistributedOption(distributed=False, ngpu=0)
        factory = task.build_iter_factory(args=args, distributed_option=option, mode="valid")
        iterator = iter(factory.build_iter(1, shuffle=True))
        for _ in range(number):
            entry = next(iterator, None)
            if entry is None:
                return
            yield entry[1]
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise ReportError(
            f"{where}: cannot be read: {error}. Run the command in the folder where the training ran. "
            f"{otherwise}".rstrip()
        ) from error
