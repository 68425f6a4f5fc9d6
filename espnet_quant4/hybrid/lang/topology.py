"""Hidden Markov models of phones, in Kaldi's text form."""

from __future__ import annotations

from collections.abc import Sequence

from espnet_quant4.hybrid.kaldi_files.tokens import KaldiFileError, TokenReader
from espnet_quant4.hybrid.kaldi_files.transition_model import read_topology

# Probability to stay in a state before training, as in Kaldi's gen_topo.pl.
SELF_LOOP = 0.75
_TOLERANCE = 0.01


def topology_text(nonsilence: Sequence[int], silence: Sequence[int]) -> str:
    """Return a ``topo`` file: three states from left to right for a phone, five for silence.

    The three inner states of silence may follow each other in any order.

    Args:
        nonsilence: ids of phones, at least one.
        silence: ids of silence and noise.
    """
    parts = ["<Topology>", *_entry(nonsilence, _left_to_right(3))]
    if silence:
        parts += _entry(silence, _silence_states(5))
    return "\n".join([*parts, "</Topology>", ""])


def check_topology(text: str, where: str) -> list[int]:
    """Return the phones that a ``topo`` file covers.

    Args:
        text: its content.
        where: its name, for messages.

    Raises:
        KaldiFileError: for a text that is no topology, and where transitions lead to states that are
            not there or their probabilities do not add up to 1.
    """
    topology = read_topology(TokenReader(text.encode(), where))
    if not topology:
        raise KaldiFileError(f"{where}: a topology without phones")
    for phone, states in topology.items():
        for number, state in enumerate(states):
            last = number == len(states) - 1
            total = sum(probability for _, probability in state.transitions)
            targets = [target for target, _ in state.transitions]
            if last == bool(targets) or (not last and abs(total - 1) > _TOLERANCE):
                wanted = (
                    "no transition, for it is the last" if last else "transitions that add up to 1"
                )
                raise KaldiFileError(
                    f"{where}: phone {phone}, state {number}: transitions that add up to {total:g}; "
                    f"wanted: {wanted}"
                )
            if not all(0 <= target < len(states) for target in targets):
                raise KaldiFileError(
                    f"{where}: phone {phone}, state {number}: transitions to {targets}; the phone has "
                    f"states 0 to {len(states) - 1}"
                )
    return list(topology)


def _entry(phones: Sequence[int], states: list[str]) -> list[str]:
    return [
        "<TopologyEntry>",
        "<ForPhones>",
        " ".join(str(phone) for phone in phones),
        "</ForPhones>",
        *states,
        "</TopologyEntry>",
    ]


def _state(number: int, transitions: Sequence[tuple[int, float]]) -> str:
    to = " ".join(f"<Transition> {state} {probability:g}" for state, probability in transitions)
    return f"<State> {number} <PdfClass> {number} {to} </State>"


def _left_to_right(count: int) -> list[str]:
    leave = 1 - SELF_LOOP
    states = [_state(n, [(n, SELF_LOOP), (n + 1, leave)]) for n in range(count)]
    return [*states, f"<State> {count} </State>"]


def _silence_states(count: int) -> list[str]:
    share = 1 / (count - 1)
    first = _state(0, [(n, share) for n in range(count - 1)])
    inner = [_state(n, [(to, share) for to in range(1, count)]) for n in range(1, count - 1)]
    last = _state(count - 1, [(count - 1, SELF_LOOP), (count, 1 - SELF_LOOP)])
    return [first, *inner, last, f"<State> {count} </State>"]
