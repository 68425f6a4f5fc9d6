"""The transition model at the head of a ``final.mdl``: which pdf each transition id scores.

Kaldi's ``hmm/transition-model.h``: a *transition state* is a phone, a state of its topology and the
pdfs that its forward and self-loop transitions emit; its transitions are numbered from 1 through all
states, and those numbers are the *transition ids* in alignments and graphs.  The GMM or neural
network behind it in the file is not read.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from espnet_quant4.hybrid.kaldi import kaldi_hmm_gmm
from espnet_quant4.hybrid.kaldi_files.tokens import KaldiFileError, TokenReader


@dataclass(frozen=True)
class HmmState:
    """A state of a phone's topology.

    Attributes:
        forward_class: pdf class of transitions that leave it; -1 for a state that emits nothing.
        self_loop_class: that of its self-loop; differs in chain topologies only.
        transitions: ``(state, probability)``, in the order of the transition ids.
    """

    forward_class: int
    self_loop_class: int
    transitions: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class TransitionModel:
    """A transition model.

    Attributes:
        topology: for each phone id its states, the last one final.
        states: (transition states, 4) int32: phone, state of its topology, pdf of forward
            transitions, pdf of the self-loop.
        log_probs: (transition ids + 1,) float32, natural logarithms; index 0 is unused.
    """

    topology: dict[int, tuple[HmmState, ...]]
    states: NDArray[np.int32]
    log_probs: NDArray[np.float32]

    @property
    def num_transition_ids(self) -> int:
        """Number of transition ids, which start at 1."""
        return len(self.log_probs) - 1

    @property
    def num_pdfs(self) -> int:
        """Number of pdfs."""
        return int(np.max(self.states[:, 2:])) + 1

    @cached_property
    def id2state(self) -> NDArray[np.int32]:
        """(transition ids + 1,): row of ``states``; -1 at index 0."""
        counts = [len(self._hmm_state(row).transitions) for row in self.states]
        return np.repeat(np.arange(-1, len(counts), dtype=np.int32), [1, *counts])

    @cached_property
    def is_self_loop(self) -> NDArray[np.bool_]:
        """(transition ids + 1,): whether a transition returns to the state that it leaves."""
        loops = [False]
        for row in self.states:
            loops += [target == row[1] for target, _ in self._hmm_state(row).transitions]
        return np.array(loops)

    @cached_property
    def id2pdf(self) -> NDArray[np.int32]:
        """(transition ids + 1,): pdf that it emits; -1 at index 0."""
        rows = self.states[self.id2state]
        pdfs = np.where(self.is_self_loop, rows[:, 3], rows[:, 2]).astype(np.int32)
        pdfs[0] = -1
        return pdfs

    @cached_property
    def id2phone(self) -> NDArray[np.int32]:
        """(transition ids + 1,): phone id; -1 at index 0."""
        phones = self.states[self.id2state, 0]
        phones[0] = -1
        return phones

    def to_kaldi(self) -> Any:
        """Return the ``kaldi_hmm_gmm.TransitionModel``, for building graphs.

        Raises:
            ImportError: without the Kaldi packages.
        """
        khg = kaldi_hmm_gmm()
        topology = khg.HmmTopology()
        topology.read(self.topology_text())
        # This class is in the compiled module only.
        tuple_type = sys.modules["_kaldi_hmm_gmm"].TransitionModelTuple
        first_ids = np.flatnonzero(np.diff(self.id2state, prepend=-2)).tolist()
        leave = np.zeros(len(self.states) + 1, dtype=np.float32)
        loops = np.flatnonzero(self.is_self_loop)
        remaining = 1.0 - np.exp(self.log_probs[loops].astype(np.float64))
        # The floor is Kaldi's.
        leave[self.id2state[loops] + 1] = np.log(np.where(remaining > 0, remaining, 1e-10))
        model = khg.TransitionModel.__new__(khg.TransitionModel)
        model.__setstate__(
            (
                [tuple_type(*row) for row in self.states.tolist()],
                topology,
                # Kaldi counts transition states from 1 and keeps the end of the last one.
                [0, *first_ids[1:], self.num_transition_ids + 1],
                [0, *(self.id2state[1:] + 1).tolist()],
                [0, *self.id2pdf[1:].tolist()],
                self.num_pdfs,
                self.log_probs.tolist(),
                leave.tolist(),
            )
        )
        return model

    def topology_text(self) -> str:
        """Return the topology in Kaldi's text form."""
        shared: dict[tuple[HmmState, ...], list[int]] = {}
        for phone, states in self.topology.items():
            shared.setdefault(states, []).append(phone)
        lines = ["<Topology>"]
        for states, phones in shared.items():
            lines += ["<TopologyEntry>", "<ForPhones>", " ".join(map(str, phones)), "</ForPhones>"]
            for number, state in enumerate(states):
                lines.append(f"<State> {number} {_state_text(state)}</State>")
            lines.append("</TopologyEntry>")
        return "\n".join([*lines, "</Topology>", ""])

    def _hmm_state(self, row: NDArray[np.int32]) -> HmmState:
        return self.topology[int(row[0])][int(row[1])]


def read_transition_model(path: str | Path) -> TransitionModel:
    """Read the transition model of a ``final.mdl``, binary or text, with triples or tuples.

    Raises:
        KaldiFileError: where the file is none, or its numbers do not belong together.
    """
    reader = TokenReader.open(path)
    reader.expect("<TransitionModel>")
    topology = read_topology(reader)
    kind = reader.expect("<Triples>", "<Tuples>")
    width = 3 if kind == "<Triples>" else 4
    count = reader.integer()
    states = np.array([reader.integer() for _ in range(count * width)], dtype=np.int32)
    states = states.reshape(count, width)
    if width == 3:
        states = np.concatenate([states, states[:, 2:]], axis=1)
    reader.expect(kind.replace("<", "</"))
    reader.expect("<LogProbs>")
    log_probs = reader.floats()
    reader.expect("</LogProbs>")
    unknown = sorted(set(states[:, 0].tolist()) - topology.keys())
    if unknown:
        raise KaldiFileError(f"{path}: transition states of phones {unknown} without a topology")
    model = TransitionModel(topology, states, log_probs)
    if len(model.id2state) != len(log_probs):
        raise KaldiFileError(
            f"{path}: {len(model.id2state) - 1} transition ids by its topology, but "
            f"{len(log_probs) - 1} log probabilities"
        )
    return model


def read_topology(reader: TokenReader) -> dict[int, tuple[HmmState, ...]]:
    """Read a ``<Topology>``; returns the states of each phone id."""
    reader.expect("<Topology>")
    read = _binary_topology if reader.binary else _text_topology
    return read(reader)


def _binary_topology(reader: TokenReader) -> dict[int, tuple[HmmState, ...]]:
    phones, phone_to_entry = reader.integers(), reader.integers()
    count = reader.integer()
    # A leading -1 says that forward and self-loop pdfs differ.
    tuples = count == -1
    if tuples:
        count = reader.integer()
    entries = []
    for _ in range(count):
        states = []
        for _ in range(reader.integer()):
            forward = reader.integer()
            loop = reader.integer() if tuples else forward
            transitions = [(reader.integer(), reader.real()) for _ in range(reader.integer())]
            states.append(HmmState(forward, loop, tuple(transitions)))
        entries.append(tuple(states))
    reader.expect("</Topology>")
    return {phone: entries[phone_to_entry[phone]] for phone in phones}


def _text_topology(reader: TokenReader) -> dict[int, tuple[HmmState, ...]]:
    topology = {}
    while reader.expect("<TopologyEntry>", "</Topology>") == "<TopologyEntry>":
        reader.expect("<ForPhones>")
        phones = reader.integers()
        reader.expect("</ForPhones>")
        states = []
        while reader.expect("<State>", "</TopologyEntry>") == "<State>":
            reader.integer()
            states.append(_text_state(reader))
        topology.update(dict.fromkeys(phones, tuple(states)))
    return dict(sorted(topology.items()))


def _text_state(reader: TokenReader) -> HmmState:
    forward = loop = -1
    transitions = []
    while (token := reader.token()) != "</State>":
        if token == "<PdfClass>":
            forward = loop = reader.integer()
        elif token == "<ForwardPdfClass>":
            forward = reader.integer()
            reader.expect("<SelfLoopPdfClass>")
            loop = reader.integer()
        elif token == "<Transition>":
            transitions.append((reader.integer(), reader.real()))
        else:
            raise KaldiFileError(f"{reader.where}: {token!r} in the states of a topology")
    return HmmState(forward, loop, tuple(transitions))


def _state_text(state: HmmState) -> str:
    text = ""
    if state.forward_class >= 0:
        if state.forward_class == state.self_loop_class:
            text += f"<PdfClass> {state.forward_class} "
        else:
            text += f"<ForwardPdfClass> {state.forward_class} "
            text += f"<SelfLoopPdfClass> {state.self_loop_class} "
    for target, probability in state.transitions:
        text += f"<Transition> {target} {probability:.9g} "
    return text
