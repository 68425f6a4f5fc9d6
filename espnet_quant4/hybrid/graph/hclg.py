"""HCLG: from HMM transitions to words, built as Kaldi's ``utils/mkgraph.sh`` does.

Mohri, Pereira and Riley, "Weighted finite-state transducers in speech recognition" (2002); Kaldi's
documentation, "Decoding graph construction in Kaldi".  Of mkgraph.sh's steps two are missing, as
``kaldifst`` lacks them: ``fstpushspecial``, which only spreads weights evenly, and
``fstrmepslocal``, which only makes the graph smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from espnet_quant4.hybrid.kaldi import kaldi_hmm_gmm, kaldifst
from espnet_quant4.hybrid.openfst import (
    DeterminizationError,
    determinize,
    from_kaldifst,
    to_kaldifst,
)

# Determinization of an FST that cannot be determinized never ends.
MAX_STATES = 20_000_000


class GraphError(ValueError):
    """A graph cannot be built, or does not belong to what it is used with."""


def build_hclg(
    lexicon: Any,
    grammar: Any,
    disambiguation: Sequence[int],
    tree: Any,
    transitions: Any,
    transition_scale: float = 1.0,
    self_loop_scale: float = 0.1,
    say: Callable[[str], None] = lambda message: None,
) -> Any:
    """Build a decoding graph.

    Args:
        lexicon: L with disambiguation symbols, a ``StdVectorFst`` from phones to words.
        grammar: G, a ``StdVectorFst`` that takes words and ``#0``.
        disambiguation: phone ids of the disambiguation symbols.
        tree: ``kaldi_hmm_gmm.ContextDependency``.
        transitions: ``kaldi_hmm_gmm.TransitionModel``.
        transition_scale: of log probabilities of transitions other than self-loops.
        self_loop_scale: of those of self-loops and of leaving a state.
        say: told about each step.

    Returns:
        A ``StdVectorFst``: input labels are transition ids, output labels words.  As in Kaldi, a
        state's self-loop comes after its forward transition (``reorder``).

    Raises:
        GraphError: where the lexicon says nothing that the grammar takes, or lacks disambiguation
            symbols that determinization needs.
    """
    fsts, khg = kaldifst(), kaldi_hmm_gmm()
    fsts.arcsort(lexicon, sort_type="olabel")
    fsts.arcsort(grammar, sort_type="ilabel")
    lg = fsts.StdVectorFst(fsts.compose(lexicon, grammar))
    _check_states(lg, "L o G: the lexicon has no word of the grammar")
    _determinize(lg, "L o G")
    fsts.minimize_encoded(lg)
    say(f"LG: {lg.num_states} states")

    fsts.arcsort(lg, sort_type="ilabel")
    clg, windows = fsts.compose_context(
        list(disambiguation), tree.context_width, tree.central_position, lg
    )
    fsts.arcsort(clg, sort_type="ilabel")
    say(f"CLG: {clg.num_states} states, {len(windows)} phones in context")

    config = khg.HTransducerConfig(transition_scale=transition_scale)
    h, transition_disambiguation = khg.get_h_transducer(windows, tree, transitions, config)
    fsts.arcsort(h, sort_type="olabel")
    graph = fsts.StdVectorFst(fsts.compose(h, clg))
    _check_states(graph, "H o CLG: the tree and the lexicon have different phones")
    _determinize(graph, "H o CLG")
    graph = _without_labels(graph, transition_disambiguation)
    fsts.minimize_encoded(graph)
    graph = khg.add_self_loops(
        trans_model=transitions,
        disambig_syms=[],
        self_loop_scale=self_loop_scale,
        reorder=True,
        ifst=graph,
    )
    say(f"HCLG: {graph.num_states} states")
    return graph


def _determinize(fst: Any, name: str) -> None:
    try:
        determinize(fst, MAX_STATES, use_log=True)
    except DeterminizationError as error:
        raise GraphError(
            f"{name}: not determinized: {error}. Pronunciations that are equal or begin another one "
            "need disambiguation symbols: make the lang folder anew."
        ) from error


def _check_states(fst: Any, message: str) -> None:
    if fst.num_states == 0:
        raise GraphError(message)


def _without_labels(fst: Any, labels: Sequence[int]) -> Any:
    """Return it with these input labels replaced by epsilon."""
    arrays = from_kaldifst(fst)
    ilabel = np.where(np.isin(arrays.ilabel, labels), 0, arrays.ilabel).astype(np.int32)
    return to_kaldifst(arrays.with_labels(ilabel=ilabel))
