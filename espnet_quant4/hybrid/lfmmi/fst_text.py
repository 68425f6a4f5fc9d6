"""OpenFst's text format, which ``fstprint`` writes and ``fstcompile`` reads.

An arc is a line ``source target ilabel olabel [cost]``, a final state ``state [cost]``; the first
line's state is the start. Costs are natural logarithms of inverse probabilities, 0 where left out.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from espnet_quant4.hybrid.openfst import MAGIC, FstArrays, FstFormatError
from espnet_quant4.hybrid.openfst import read_fst as read_binary_fst
from espnet_quant4.text_files import read_lines

ARC_FIELDS, FINAL_FIELDS = (4, 5), (1, 2)


def read_fst(path: str | Path) -> FstArrays:
    """Read an FST from a text file, or from OpenFst's binary one.

    Raises:
        FstFormatError: for a malformed line, which it names, and an FST without states.
        FileNotFoundError: where there is no such file.
    """
    path = Path(path)
    with open(path, "rb") as file:
        if file.read(4) == MAGIC.to_bytes(4, "little"):
            return read_binary_fst(path)
    arcs: list[tuple[int, int, int, int, float]] = []
    finals: dict[int, float] = {}
    start = None
    for number, line in enumerate(read_lines(path), start=1):
        fields = line.split()
        if not fields:
            continue
        try:
            if len(fields) in ARC_FIELDS:
                source, target, ilabel, olabel = map(int, fields[:4])
                arcs.append((source, target, ilabel, olabel, float((*fields, "0")[4])))
            elif len(fields) in FINAL_FIELDS:
                source = int(fields[0])
                finals[source] = float((*fields, "0")[1])
            else:
                raise ValueError(f"{len(fields)} fields")
        except ValueError as error:
            raise FstFormatError(
                f"{path}:{number}: {line!r} ({error}); an arc is 'source target ilabel olabel "
                "[cost]', a final state 'state [cost]', as fstprint writes them."
            ) from error
        start = source if start is None else start
    if start is None:
        raise FstFormatError(f"{path}: an FST without states; make it anew.")
    return _arrays(start, arcs, finals)


def _arrays(
    start: int, arcs: list[tuple[int, int, int, int, float]], finals: dict[int, float]
) -> FstArrays:
    labels = np.array([arc[:4] for arc in arcs], dtype=np.int64).reshape(-1, 4)
    weight = np.array([arc[4] for arc in arcs], dtype=np.float32).reshape(-1, 1)
    order = np.argsort(labels[:, 0], kind="stable")
    labels, weight = labels[order], weight[order]
    num_states = max([start, *finals, *labels[:, :2].ravel().tolist()]) + 1
    costs = np.full((num_states, 1), np.inf, dtype=np.float32)
    costs[list(finals), 0] = list(finals.values())
    return FstArrays(
        start=start,
        finals=costs,
        source=labels[:, 0],
        target=labels[:, 1],
        ilabel=labels[:, 2].astype(np.int32),
        olabel=labels[:, 3].astype(np.int32),
        weight=weight,
    )


def write_fst(fst: FstArrays, path: str | Path) -> None:
    """Write it as text, by way of ``PATH.part``."""
    path = Path(path)
    rows = zip(fst.source, fst.target, fst.ilabel, fst.olabel, fst.weight[:, 0], strict=True)
    lines = [f"{s} {t} {i} {o} {w:.7g}\n" for s, t, i, o, w in rows]
    # The first line decides which state is the start.
    first = int(np.searchsorted(fst.source, fst.start))
    lines = lines[first:] + lines[:first]
    finals = np.flatnonzero(np.isfinite(fst.finals[:, 0]))
    lines += [f"{state} {fst.finals[state, 0]:.7g}\n" for state in finals]
    part = path.with_name(f"{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    part.write_text("".join(lines), encoding="utf-8")
    os.replace(part, path)
