"""The lexicon as a transducer from phones to words, with optional silence between words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from espnet_quant4.hybrid.lang.lexicon import Pronunciation

# States: before the first word, between words, and after a word that silence follows.
_START, _LOOP, _SILENCE = 0, 1, 2


def lexicon_fst_text(
    pronunciations: Sequence[tuple[Pronunciation, int]],
    phones: Mapping[str, int],
    words: Mapping[str, int],
    silence: str,
    silence_probability: float = 0.5,
    silence_disambiguation: str | None = None,
) -> str:
    """Return L in OpenFst's text form, labels as numbers.

    A word is followed by silence with ``silence_probability``, and so is the start of an utterance.
    With ``silence_disambiguation`` the words get their disambiguation symbols, silence has one of its
    own, and ``#0`` passes through, so that a grammar's backoff arcs survive the composition (as in
    Kaldi's ``add_lex_disambig.pl`` and ``make_lexicon_fst.py``).

    Args:
        pronunciations: with the number of their disambiguation symbol, 0 for none.
        phones: ids, with ``#N`` where they are used.
        words: ids.
        silence: the optional silence phone.
        silence_probability: above 0, below 1.
        silence_disambiguation: symbol such as ``#3``; None for an L without any such symbol.
    """
    with_silence = -math.log(silence_probability)
    without = -math.log(1 - silence_probability)
    arcs: list[str] = []
    next_state = 3

    def arc(source: int, target: int, phone: int, word: int, weight: float) -> None:
        arcs.append(f"{source} {target} {phone} {word} {weight:.6g}")

    arc(_START, _LOOP, 0, 0, without)
    arc(_START, _SILENCE, 0, 0, with_silence)
    if silence_disambiguation is None:
        arc(_SILENCE, _LOOP, phones[silence], 0, 0.0)
    else:
        arc(_SILENCE, next_state, phones[silence], 0, 0.0)
        arc(next_state, _LOOP, phones[silence_disambiguation], 0, 0.0)
        next_state += 1
        arc(_LOOP, _LOOP, phones["#0"], words["#0"], 0.0)
    for entry, number in pronunciations:
        labels = [phones[phone] for phone in entry.phones]
        if silence_disambiguation is not None and number:
            labels.append(phones[f"#{number}"])
        cost = -math.log(entry.probability)
        state, word = _LOOP, words[entry.word]
        for label in labels[:-1]:
            arc(state, next_state, label, word, cost)
            state, word, cost, next_state = next_state, 0, 0.0, next_state + 1
        arc(state, _LOOP, labels[-1], word, cost + without)
        arc(state, _SILENCE, labels[-1], word, cost + with_silence)
    arcs.append(f"{_LOOP} 0")
    return "\n".join(arcs) + "\n"
