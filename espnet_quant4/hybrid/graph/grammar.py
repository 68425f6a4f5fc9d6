"""Grammars as acceptors: G from an ARPA file, or of the whole sentences of a text."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet_quant4.hybrid.graph.arpa import BEGIN, END, LanguageModelError, write_arpa
from espnet_quant4.hybrid.graph.arpa_reader import read_arpa
from espnet_quant4.hybrid.kaldi import kaldifst, kaldilm
from espnet_quant4.text_files import read_symbols

# Stands on the input side of backoff arcs, so that L o G can be determinized.
BACKOFF = "#0"
_RESERVED = (BEGIN, END, BACKOFF, "<eps>")


def arpa_to_fst(arpa: Path, words: Path) -> tuple[Any, list[str]]:
    """Make G of an ARPA file; input labels are words and ``#0``, output labels words.

    Args:
        arpa: the file.
        words: symbol table; what it lacks cannot be recognized and is left out.

    Returns:
        A ``StdVectorFst`` sorted by input labels, and the words left out.

    Raises:
        LanguageModelError: where no word is left, or for a file that is not valid; see `read_arpa`.
    """
    model = read_arpa(arpa)
    known = read_symbols(words)
    if lacking := [symbol for symbol in _RESERVED if symbol not in known]:
        raise LanguageModelError(
            f"{words}: {', '.join(lacking)} not in it; make the lang folder anew: hybrid-lang"
        )
    left_out = sorted(set(model.words) - known.keys())
    if len(left_out) == len(model.words):
        raise LanguageModelError(
            f"{arpa}: none of its words is in {words}, such as {', '.join(left_out[:3])}. Are they "
            "spelt as in the lexicon, also in upper and lower case?"
        )
    lm, fsts = kaldilm(), kaldifst()
    with tempfile.TemporaryDirectory() as folder:
        # What was read, not what is in the file: kaldilm ends the process over a byte-order mark too.
        plain, file = Path(folder) / "lm.arpa", Path(folder) / "G.fst"
        write_arpa(model, plain)
        lm.arpa2fst(
            str(plain),
            str(file),
            disambig_symbol=BACKOFF,
            read_symbol_table=str(words),
            max_arpa_warnings=0,
        )
        grammar = fsts.StdVectorFst.read(str(file))
    fsts.arcsort(grammar, sort_type="ilabel")
    return grammar, left_out


def phrase_grammar(
    sentences: Iterable[Sequence[str]], words: Mapping[str, int]
) -> tuple[Any, list[str]]:
    """Make a G that accepts the sentences of a text as wholes and nothing else.

    Suits small command tasks.  A sentence's probability is its share of the text, each word's given
    all words before it.

    Args:
        sentences: words; sentences without words are left out.
        words: ids; sentences with a word that it lacks are left out.

    Returns:
        A ``StdVectorFst`` sorted by input labels, and the sentences left out for a word.

    Raises:
        LanguageModelError: where no sentence is left.
    """
    counts = Counter(tuple(sentence) for sentence in sentences if sentence)
    usable = {word for word in words if word not in _RESERVED}
    left_out = sorted(" ".join(s) for s in counts if not usable.issuperset(s))
    kept = {s: n for s, n in counts.items() if usable.issuperset(s)}
    if not kept:
        raise LanguageModelError(
            f"no sentence of known words is left for a phrase grammar, of {len(counts)}"
        )
    through: Counter[tuple[str, ...]] = Counter()
    for sentence, count in kept.items():
        for length in range(len(sentence) + 1):
            through[sentence[:length]] += count
    # A state for each beginning of a sentence; all sentences share the start.
    states = {beginning: number for number, beginning in enumerate(sorted(through, key=len))}
    fsts = kaldifst()
    grammar = fsts.StdVectorFst()
    for _ in states:
        grammar.add_state()
    grammar.start = 0
    for beginning, state in states.items():
        if beginning:
            before, label = beginning[:-1], words[beginning[-1]]
            cost = -math.log(through[beginning] / through[before])
            grammar.add_arc(states[before], fsts.StdArc(label, label, cost, state))
        if beginning in kept:
            grammar.set_final(state, -math.log(kept[beginning] / through[beginning]))
    # The default rounds costs to 1/1024.
    fsts.minimize_encoded(grammar, delta=1e-6)
    fsts.arcsort(grammar, sort_type="ilabel")
    return grammar, left_out
