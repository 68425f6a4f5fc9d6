"""The numerator: the runs of an alignment in their order, each boundary free to move a little.

As in Kaldi's chain models (Povey et al., 2016, section 2.2; ``--left-tolerance`` and
``--right-tolerance`` of ``chain-get-supervision``), and with the weights of the denominator graph:
the lattice holds the paths of that graph whose runs are the alignment's. What the numerator sums up
is thus part of what the denominator does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from espnet_quant4.hybrid.lfmmi.lattice_score import Lattices
from espnet_quant4.hybrid.lfmmi.runs import Ints, collapse, expand
from espnet_quant4.hybrid.lfmmi.state_graph import StateGraph

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Runs:
    """Runs of all utterances.

    Attributes:
        utterance: (R,) position in the batch.
        pdf: (R,).
        earliest: (R,) first frame that may belong to the run.
        latest: (R,) last frame that may.
        is_first: (R,) bool, first of its utterance.
        is_last: (R,) bool.
    """

    utterance: Ints
    pdf: Ints
    earliest: Ints
    latest: Ints
    is_first: NDArray[np.bool_]
    is_last: NDArray[np.bool_]


class NumeratorBuilder:
    """Makes the numerator lattices of a batch.

    Args:
        graph: the denominator graph, without leaking.
        tolerance: frames by which a boundary may move to either side.
        num_pdfs: number of pdf ids that there may be in an alignment.
    """

    def __init__(self, graph: StateGraph, tolerance: int, num_pdfs: int) -> None:
        self.tolerance, self.num_pdfs = tolerance, num_pdfs
        self.pdfs = graph.pdfs.numpy()
        with np.errstate(divide="ignore"):
            self.initial = np.log(graph.initial.numpy())
            self.final = np.log(graph.final.numpy())
        # States by pdf id, and the place of each among those of its pdf id.
        self.by_pdf = np.argsort(self.pdfs, kind="stable")
        self.states_of = np.bincount(self.pdfs, minlength=self.num_pdfs)
        self.first_of = np.cumsum(self.states_of) - self.states_of
        self.rank = np.empty_like(self.by_pdf)
        self.rank[self.by_pdf] = np.arange(len(self.pdfs)) - self.first_of[self.pdfs[self.by_pdf]]
        leave = graph.leave.coalesce()
        rows, self.leave_node = leave.indices().numpy()
        self.leave_weight = np.log(leave.values().numpy())
        self.leave_count = np.bincount(rows, minlength=len(self.pdfs))
        self.leave_first = np.cumsum(self.leave_count) - self.leave_count
        enter = graph.enter.coalesce()
        nodes, states = enter.indices().numpy()
        keys = nodes * self.num_pdfs + self.pdfs[states]
        order = np.argsort(keys, kind="stable")
        self.enter_key, self.enter_state = keys[order], states[order]
        self.enter_weight = np.log(enter.values().numpy()[order])

    def build(self, alignments: Sequence[Ints]) -> Lattices:
        """Return the lattices of a batch, on the CPU.

        Args:
            alignments: (frames,) pdf ids of each utterance, at least one, 0 to ``num_pdfs - 1``.
        """
        runs = self._runs(alignments)
        run, state, source, target, weight = self._paths(runs)
        earliest, latest = runs.earliest[run], runs.latest[run]
        # A node for each frame that a run may hold; sorted by frame.
        spans = latest - earliest + 1
        unit, offset = expand(spans)
        frame = earliest[unit] + offset
        order = np.argsort(frame, kind="stable")
        position = np.empty_like(order)
        position[order] = np.arange(len(order))
        first_node = np.cumsum(spans) - spans
        # An arc for each frame that its target may hold while the frame before is its source's.
        begin = np.maximum(earliest[target], earliest[source] + 1)
        finish = np.minimum(latest[target], latest[source] + 1)
        arc, offset = expand(np.maximum(finish - begin + 1, 0))
        arc_frame = begin[arc] + offset
        arc_order = np.argsort(arc_frame, kind="stable")
        arc, arc_frame = arc[arc_order], arc_frame[arc_order]
        source, target, weight = source[arc], target[arc], weight[arc]
        unit, frame = unit[order], frame[order]
        num_frames = max(map(len, alignments))
        nodes_before = np.searchsorted(frame, np.arange(num_frames + 1))
        is_end = runs.is_last[run[unit]] & (frame == latest[unit])
        return Lattices(
            batch=len(alignments),
            sequence=torch.from_numpy(runs.utterance[run[unit]]),
            frame=torch.from_numpy(frame),
            pdf=torch.from_numpy(runs.pdf[run[unit]]),
            initial=torch.from_numpy(self.initial[state[unit[: nodes_before[1]]]]),
            final=torch.from_numpy(np.where(is_end, self.final[state[unit]], -np.inf)),
            source=torch.from_numpy(
                position[first_node[source] + arc_frame - 1 - earliest[source]]
            ),
            target=torch.from_numpy(position[first_node[target] + arc_frame - earliest[target]]),
            weight=torch.from_numpy(weight),
            nodes_before=nodes_before.tolist(),
            arcs_before=np.searchsorted(arc_frame, np.arange(num_frames + 1)).tolist(),
        )

    def _runs(self, alignments: Sequence[Ints]) -> _Runs:
        """Return the runs, with the frames that tolerance and the runs around leave to each."""
        parts: list[tuple[Ints, ...]] = []
        for position, pdf_ids in enumerate(alignments):
            pdf, start, end = collapse(pdf_ids)
            index = np.arange(len(pdf))
            earliest = np.maximum(start - self.tolerance, index)
            latest = end - 1 + self.tolerance
            latest = np.minimum(latest, len(pdf_ids) - 1 - index[::-1])
            earliest[0], latest[-1] = 0, len(pdf_ids) - 1
            parts.append((np.full_like(pdf, position), pdf, earliest, latest, index, index[::-1]))
        utterance, pdf, earliest, latest, place, place_from_end = (
            np.concatenate(column) for column in zip(*parts, strict=True)
        )
        return _Runs(utterance, pdf, earliest, latest, place == 0, place_from_end == 0)

    def _paths(self, runs: _Runs) -> tuple[Ints, Ints, Ints, Ints, Floats]:
        """Return what the graph allows: units, which are pairs of a run and a state, and arcs.

        Returns:
            The run and the state of each unit, in the order of runs; source, target and log
            probability of each arc between units of a run and of the next.
        """
        counts = self.states_of[runs.pdf]
        run, rank = expand(counts)
        state = self.by_pdf[self.first_of[runs.pdf[run]] + rank]
        first_unit = np.cumsum(counts) - counts
        unit, offset = expand(self.leave_count[state])
        leaving = self.leave_first[state[unit]] + offset
        arcs = []
        for step in (0, 1):
            goes = np.flatnonzero(~runs.is_last[run[unit]]) if step else np.arange(len(unit))
            following = run[unit[goes]] + step
            key = self.leave_node[leaving[goes]] * self.num_pdfs + runs.pdf[following]
            begin = np.searchsorted(self.enter_key, key)
            owner, offset = expand(np.searchsorted(self.enter_key, key, side="right") - begin)
            entering = begin[owner] + offset
            arcs.append(
                (
                    unit[goes][owner],
                    first_unit[following[owner]] + self.rank[self.enter_state[entering]],
                    self.leave_weight[leaving[goes][owner]] + self.enter_weight[entering],
                )
            )
        # A state with a history other than the run before is entered from nowhere.
        is_entered = runs.is_first[run] & np.isfinite(self.initial[state])
        is_entered[arcs[1][1]] = True
        within = arcs[0]
        while True:
            spread = is_entered.copy()
            spread[within[1][is_entered[within[0]]]] = True
            if np.array_equal(spread, is_entered):
                break
            is_entered = spread
        source, target, weight = map(np.concatenate, zip(*arcs, strict=True))
        kept = is_entered[source] & is_entered[target]
        renumbered = np.cumsum(is_entered) - 1
        return (
            run[is_entered],
            state[is_entered],
            renumbered[source[kept]],
            renumbered[target[kept]],
            weight[kept],
        )
