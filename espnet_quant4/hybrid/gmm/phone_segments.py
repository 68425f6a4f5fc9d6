"""Phones of an alignment, and alignments for another tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from espnet_quant4.hybrid.gmm.alignment import Alignments
from espnet_quant4.hybrid.gmm.tree import Tree


@dataclass(frozen=True)
class TransitionTable:
    """What is known of each transition id; arrays are indexed by it, and the first entry is unused.

    Attributes:
        phone: phone id.
        state: state of the phone's topology.
        index: which transition of that state it is.
        is_final: whether it leaves the phone.
        is_self_loop: whether it stays in the state.
        first_id: the first transition id of each ``(phone, state, pdf)``.
    """

    phone: np.ndarray
    state: np.ndarray
    index: np.ndarray
    is_final: np.ndarray
    is_self_loop: np.ndarray
    first_id: Mapping[tuple[int, int, int], int]

    @classmethod
    def of(cls, transitions: Any) -> TransitionTable:
        """Return that of a ``TransitionModel``."""
        state2id, id2state = transitions.state2id, transitions.id2state
        # Phone, state of the topology, pdf, and pdf of the self loop.
        tuples = [each.__getstate__() for each in transitions.tuples]
        ids = range(1, len(id2state))
        of_id = [tuples[id2state[i] - 1] for i in ids]
        return cls(
            np.array([0, *(phone for phone, _, _, _ in of_id)]),
            np.array([0, *(state for _, state, _, _ in of_id)]),
            np.array([0, *(i - state2id[id2state[i]] for i in ids)]),
            np.array([False, *(transitions.is_final(i) for i in ids)]),
            np.array([False, *(transitions.is_self_loop(i) for i in ids)]),
            {(p, s, pdf): state2id[n] for n, (p, s, pdf, _) in enumerate(tuples, 1)},
        )


def phone_segments(ids: np.ndarray, table: TransitionTable) -> list[tuple[int, int, int]]:
    """Return phone, first frame and frame after the last of each phone of an alignment.

    A self loop that follows the transition out of a state still belongs to it: alignments have
    self loops behind ("reordered", as Kaldi's graphs).
    """
    result = []
    begin, count = 0, len(ids)
    frame = 0
    while frame < count:
        if table.is_final[ids[frame]]:
            while (
                frame + 1 < count
                and table.is_self_loop[ids[frame + 1]]
                and table.phone[ids[frame + 1]] == table.phone[ids[frame]]
                and table.state[ids[frame + 1]] == table.state[ids[frame]]
            ):
                frame += 1
            result.append((int(table.phone[ids[begin]]), begin, frame + 1))
            begin = frame + 1
        frame += 1
    if begin < count:
        result.append((int(table.phone[ids[begin]]), begin, count))
    return result


def convert_alignments(
    alignments: Alignments, old: TransitionTable, tree: Tree, new: TransitionTable
) -> Alignments:
    """Return alignments in the transition ids of another tree with the same topology."""
    result = Alignments(failed=dict(alignments.failed), log_likelihood=alignments.log_likelihood)
    for utterance, ids in alignments.ids.items():
        segments = phone_segments(ids, old)
        phones = [0, *(phone for phone, _, _ in segments), 0]
        converted = np.empty_like(ids)
        for position, (phone, begin, end) in enumerate(segments):
            window = (phones[position], phone, phones[position + 2])
            for frame in range(begin, end):
                state = int(old.state[ids[frame]])
                pdf = tree.pdf(window, state)
                converted[frame] = new.first_id[phone, state, pdf] + old.index[ids[frame]]
        result.ids[utterance] = converted
    return result
