"""The first alignment: pauses by energy, phones spread evenly over the speech between them.

Cutting whole utterances into equal parts, as Kaldi's ``align-equal`` does, gives silence as much of the
speech as any phone; where words stand apart, as in spelling, training then stays with a model of
silence that takes vowels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from espnet_quant4.hybrid.gmm.alignment import Alignments
from espnet_quant4.hybrid.gmm.phone_segments import TransitionTable

# Frames; shorter ones are closures of plosives, or clicks.
SHORTEST_PAUSE, SHORTEST_SPEECH = 15, 6
# Between the quiet and the loud frames of an utterance.
THRESHOLD = 0.35


def speech_regions(energy: np.ndarray) -> list[tuple[int, int]]:
    """Return first frame and frame after the last of each stretch of speech, at least one.

    Args:
        energy: ``(frames,)`` logarithmic, in any unit.
    """
    quiet, loud = np.percentile(energy, [5, 95])
    smooth = np.convolve(np.pad(energy, 2, mode="edge"), np.ones(5) / 5, mode="valid")
    active = smooth > quiet + THRESHOLD * (loud - quiet)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], active.astype(int), [0]])))
    regions: list[tuple[int, int]] = []
    for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if regions and begin - regions[-1][1] < SHORTEST_PAUSE:
            regions[-1] = (regions[-1][0], end)
        else:
            regions.append((begin, end))
    long = [(begin, end) for begin, end in regions if end - begin >= SHORTEST_SPEECH]
    return long or [(0, len(energy))]


def spread_phones(
    words: Sequence[Sequence[int]], regions: Sequence[tuple[int, int]], frames: int, silence: int
) -> list[tuple[int, int]]:
    """Return phones and how many frames each lasts, silence between regions included.

    A pause stands at the end of the word that is nearest to it, counted in phones.

    Args:
        words: phone ids of each word.
        regions: of speech, in order.
        frames: of the utterance.
        silence: its phone id.
    """
    ends = np.cumsum([len(word) for word in words]).tolist()
    phones = [phone for word in words for phone in word]
    lengths = np.cumsum([end - begin for begin, end in regions])
    cuts = [0]
    for position in (lengths[:-1] / lengths[-1] * len(phones)).tolist():
        cuts.append(max(cuts[-1], min(ends, key=lambda end: abs(end - position))))
    cuts.append(len(phones))
    spread: list[tuple[int, int]] = []
    here = 0
    for number, (begin, end) in enumerate(regions):
        mine = phones[cuts[number] : cuts[number + 1]]
        if not mine:
            continue  # without words of its own it counts as a pause
        if begin > here:
            spread.append((silence, begin - here))
        at = np.linspace(begin, end, len(mine) + 1).round().astype(int)
        spread += [(phone, int(n)) for phone, n in zip(mine, np.diff(at), strict=True)]
        here = end
    if frames > here:
        spread.append((silence, frames - here))
    return spread


def flat_alignments(
    transitions: Any,
    energies: Mapping[str, np.ndarray],
    transcripts: Mapping[str, Sequence[Sequence[int]]],
    silence: int,
) -> Alignments:
    """Return the alignment of every utterance that is long enough.

    Args:
        transitions: ``TransitionModel`` of phones without context.
        energies: ``(frames,)`` logarithmic energy of each utterance.
        transcripts: phone ids of each word of each utterance.
        silence: phone id.
    """
    table = TransitionTable.of(transitions)
    paths = {phone: _path(transitions, table, phone) for phone in transitions.phones}
    result = Alignments()
    for utterance, energy in energies.items():
        words = transcripts.get(utterance)
        if not words:
            why = "no transcript" if words is None else "empty transcript"
            result.failed[utterance] = why
            continue
        # Where pauses leave too little room, the whole utterance is taken as speech.
        for regions in (speech_regions(energy), [(0, len(energy))]):
            spread = spread_phones(words, regions, len(energy), silence)
            spread = _without_short_silence(spread, silence, len(paths[silence]))
            if all(count >= len(paths[phone]) for phone, count in spread):
                ids = [i for phone, count in spread for i in _ids(paths[phone], count)]
                result.ids[utterance] = np.array(ids, dtype=np.int32)
                break
        else:
            result.failed[utterance] = f"{len(energy)} frames are fewer than its phones need"
    return result


def _without_short_silence(
    spread: list[tuple[int, int]], silence: int, shortest: int
) -> list[tuple[int, int]]:
    """Give the frames of silence that is too short for its states to the phone beside it."""
    result: list[tuple[int, int]] = []
    owed = 0
    for phone, count in spread:
        if phone == silence and count < shortest:
            if result:
                result[-1] = (result[-1][0], result[-1][1] + count)
            else:
                owed = count
        else:
            result.append((phone, count + owed))
            owed = 0
    return result


def _path(transitions: Any, table: TransitionTable, phone: int) -> list[tuple[int, int]]:
    """Return transition ids out of and within each state of a phone, states in their order."""
    pdf_of = {(p, s): first for (p, s, _), first in table.first_id.items()}
    ids = []
    for number, state in enumerate(transitions.topo.topology_for_phone(phone)):
        targets = [target for target, _ in state.transitions]
        if targets:
            first = pdf_of[phone, number]
            ids.append((first + targets.index(number + 1), first + targets.index(number)))
    return ids


def _ids(path: list[tuple[int, int]], count: int) -> list[int]:
    """Return transition ids of a phone that lasts ``count`` frames; self loops stand behind."""
    at = np.linspace(0, count, len(path) + 1).round().astype(int)
    ids: list[int] = []
    for (leave, stay), frames in zip(path, np.diff(at).tolist(), strict=True):
        ids += [leave] + [stay] * (frames - 1)
    return ids
