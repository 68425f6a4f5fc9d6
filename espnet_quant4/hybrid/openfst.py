"""OpenFst's binary files as arrays: to change labels and to walk lattices without a loop over arcs.

``kaldifst`` has neither OpenFst's ``relabel`` and ``prune`` nor iterators over lattices, and cannot
read type ``const``, which is what Kaldi writes graphs in.  The format is that of ``fst/fst.cc``,
``fst/vector-fst.h`` and ``fst/const-fst.h`` of OpenFst 1.6 and later: a header, then for type
``vector`` each state with its arcs, for ``const`` all states and then all arcs.
"""

from __future__ import annotations

import struct
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from espnet_quant4.hybrid.kaldi import kaldifst

MAGIC = 2125659606
# Bits of the header's flags.
_INPUT_SYMBOLS, _OUTPUT_SYMBOLS, _ALIGNED = 1, 2, 4
_VECTOR_VERSION, _CONST_ALIGNED_VERSION, _ALIGNMENT = 2, 1, 16
_EXPANDED_PROPERTY, _MUTABLE_PROPERTY = 1, 2
# Version, flags, properties, start, states, arcs.
_HEADER = "<iiQqqq"
# Weights: cost (standard), or graph and acoustic cost (lattice4).
WEIGHTS = {"standard": 1, "lattice4": 2}
_CONST_STATE = np.dtype(
    [("final", "<f4"), ("first", "<u4"), ("arcs", "<u4"), ("inputs", "<u4"), ("outputs", "<u4")]
)


class FstFormatError(ValueError):
    """A file is no FST of a kind that can be read."""


class DeterminizationError(ValueError):
    """An FST cannot be determinized, or has too many states."""


@dataclass(frozen=True)
class FstArrays:
    """An FST.

    Attributes:
        start: first state; -1 for an FST without states.
        finals: (states, weights) float32, costs; infinite where a state is not final.
        source: (arcs,) int64, the state that each arc leaves, ascending.
        target: (arcs,) int64.
        ilabel: (arcs,) int32, 0 for epsilon.
        olabel: (arcs,) int32.
        weight: (arcs, weights) float32, costs; ``weights`` is 1, or 2 (graph, acoustic) of a lattice.
    """

    start: int
    finals: NDArray[np.float32]
    source: NDArray[np.int64]
    target: NDArray[np.int64]
    ilabel: NDArray[np.int32]
    olabel: NDArray[np.int32]
    weight: NDArray[np.float32]

    @property
    def num_states(self) -> int:
        """Number of states."""
        return len(self.finals)

    def with_labels(
        self, ilabel: NDArray[np.int32] | None = None, olabel: NDArray[np.int32] | None = None
    ) -> FstArrays:
        """Return it with other labels."""
        return replace(
            self,
            ilabel=self.ilabel if ilabel is None else ilabel,
            olabel=self.olabel if olabel is None else olabel,
        )

    def arcs_of_states(self) -> NDArray[np.int64]:
        """Return (states + 1,) where each state's arcs begin and the last one's end."""
        return np.searchsorted(self.source, np.arange(self.num_states + 1)).astype(np.int64)


def read_fst(path: str | Path) -> FstArrays:
    """Read a file of type ``vector`` or ``const`` with arcs of type ``standard`` or ``lattice4``.

    Raises:
        FstFormatError: for anything else, or where the file ends too early.
    """
    data = Path(path).read_bytes()
    try:
        return _parse(data, str(path))
    except (struct.error, ValueError, IndexError) as error:
        if isinstance(error, FstFormatError):
            raise
        raise FstFormatError(f"{path}: the FST ends too early ({error}); make it anew") from error


def write_fst(fst: FstArrays, path: str | Path) -> None:
    """Write it as type ``vector`` with arcs of type ``standard``.

    Raises:
        FstFormatError: for a lattice, whose weights are pairs.
    """
    if fst.weight.shape[1] != 1:
        raise FstFormatError(f"{path}: weights of {fst.weight.shape[1]} values; 1 can be written")
    arcs = np.zeros(len(fst.source), dtype=_arc_type(1))
    arcs["ilabel"], arcs["olabel"] = fst.ilabel, fst.olabel
    arcs["weight"], arcs["target"] = fst.weight, fst.target
    first = fst.arcs_of_states().tolist()
    with open(path, "wb") as file:
        file.write(struct.pack("<i", MAGIC) + _string("vector") + _string("standard"))
        properties = _EXPANDED_PROPERTY | _MUTABLE_PROPERTY
        file.write(
            struct.pack(_HEADER, _VECTOR_VERSION, 0, properties, fst.start, len(first) - 1, 0)
        )
        for final, begin, end in zip(fst.finals[:, 0].tolist(), first, first[1:], strict=False):
            file.write(struct.pack("<fq", final, end - begin))
            file.write(arcs[begin:end].tobytes())


def from_kaldifst(fst: Any) -> FstArrays:
    """Return the arrays of a ``StdVectorFst``, ``StdConstFst`` or ``Lattice``."""
    with tempfile.NamedTemporaryFile(suffix=".fst") as file:
        fst.write(file.name)
        return read_fst(file.name)


def read_kaldifst(path: Path) -> Any:
    """Read a file as ``kaldifst.StdVectorFst``.

    Raises:
        FstFormatError: for a file of another format, or a damaged one.
        OSError: where it cannot be read.
    """
    # kaldifst takes a missing file for a damaged one.
    path.open("rb").close()
    found = kaldifst().StdVectorFst.read(str(path))
    if found is None:
        raise FstFormatError(
            f"{path}: no FST in OpenFst's binary form of type vector, or a damaged one; make it anew, "
            "or convert it by: fstconvert --fst_type=vector IN OUT"
        )
    return found


def to_kaldifst(fst: FstArrays) -> Any:
    """Return a ``kaldifst.StdVectorFst``."""
    with tempfile.NamedTemporaryFile(suffix=".fst") as file:
        write_fst(fst, file.name)
        return kaldifst().StdVectorFst.read(file.name)


def determinize(fst: Any, max_states: int, use_log: bool = False) -> None:
    """Remove epsilons from a ``StdVectorFst`` and determinize it, in place.

    Args:
        fst: what is changed.
        max_states: what cannot be determinized may grow for ever.
        use_log: add the probabilities of equal paths instead of taking the best.

    Raises:
        DeterminizationError: where it has more states or cannot be determinized; ``fst`` is of no
            use then.
    """
    try:
        stopped = kaldifst().determinize_star(fst, max_states=max_states, use_log=use_log)
    except RuntimeError as error:
        raise DeterminizationError(str(error).partition("[E] ")[2] or str(error)) from error
    if stopped:
        raise DeterminizationError(f"more than {max_states:,} states")


def _string(text: str) -> bytes:
    return struct.pack("<i", len(text)) + text.encode()


def _arc_type(weights: int) -> np.dtype[Any]:
    return np.dtype(
        [("ilabel", "<i4"), ("olabel", "<i4"), ("weight", "<f4", (weights,)), ("target", "<i4")]
    )


def _parse(data: bytes, where: str) -> FstArrays:
    position = 4
    if data[:4] != struct.pack("<i", MAGIC):
        raise FstFormatError(
            f"{where}: no binary OpenFst file. A text file becomes one with fstcompile."
        )

    def string() -> str:
        nonlocal position
        (length,) = struct.unpack_from("<i", data, position)
        position += 4 + length
        return data[position - length : position].decode()

    fst_type, arc_type = string(), string()
    if fst_type not in ("vector", "const") or arc_type not in WEIGHTS:
        raise FstFormatError(
            f"{where}: type {fst_type!r} with arcs {arc_type!r}; valid: vector or const with arcs "
            f"{' or '.join(WEIGHTS)}. fstconvert --fst_type=const converts."
        )
    version, flags, _, start, states, arcs = struct.unpack_from(_HEADER, data, position)
    position += struct.calcsize(_HEADER)
    if flags & (_INPUT_SYMBOLS | _OUTPUT_SYMBOLS):
        raise FstFormatError(
            f"{where}: holds symbol tables; remove them: fstsymbols --clear_isymbols --clear_osymbols"
        )
    if fst_type == "vector":
        return _parse_vector(data, position, start, states, WEIGHTS[arc_type])
    aligned = bool(flags & _ALIGNED) or version == _CONST_ALIGNED_VERSION
    return _parse_const(data, position, start, states, arcs, aligned)


def _parse_vector(data: bytes, position: int, start: int, states: int, weights: int) -> FstArrays:
    arc_type = _arc_type(weights)
    finals, counts, parts = [], [], []
    # The number of states in the header is -1 where the file was written to a pipe.
    while position < len(data):
        finals.append(np.frombuffer(data, "<f4", weights, position))
        (count,) = struct.unpack_from("<q", data, position + 4 * weights)
        position += 4 * weights + 8
        parts.append(np.frombuffer(data, arc_type, count, position))
        position += count * arc_type.itemsize
        counts.append(count)
    if states not in (-1, len(counts)):
        raise ValueError(f"{len(counts)} of {states} states")
    all_arcs = np.concatenate(parts) if parts else np.zeros(0, arc_type)
    all_finals = np.array(finals, dtype=np.float32).reshape(-1, weights)
    return _arrays(start, all_finals, np.array(counts, dtype=np.int64), all_arcs)


def _parse_const(
    data: bytes, position: int, start: int, states: int, arcs: int, aligned: bool
) -> FstArrays:
    def align(offset: int) -> int:
        return -(-offset // _ALIGNMENT) * _ALIGNMENT if aligned else offset

    position = align(position)
    state_array = np.frombuffer(data, _CONST_STATE, states, position)
    position = align(position + state_array.nbytes)
    arc_array = np.frombuffer(data, _arc_type(1), arcs, position)
    finals = np.array(state_array["final"], dtype=np.float32)[:, None]
    return _arrays(start, finals, state_array["arcs"].astype(np.int64), arc_array)


def _arrays(
    start: int, finals: NDArray[np.float32], counts: NDArray[np.int64], arcs: NDArray[Any]
) -> FstArrays:
    return FstArrays(
        start=start,
        finals=finals,
        source=np.repeat(np.arange(len(counts), dtype=np.int64), counts),
        target=arcs["target"].astype(np.int64),
        ilabel=arcs["ilabel"].astype(np.int32),
        olabel=arcs["olabel"].astype(np.int32),
        weight=np.ascontiguousarray(arcs["weight"], dtype=np.float32).reshape(-1, finals.shape[1]),
    )
