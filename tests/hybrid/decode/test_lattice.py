"""N-best lists and pruning of random lattices, against all their paths."""

import numpy as np
import pytest

from espnet_quant4.hybrid.decode import lattice as module
from espnet_quant4.hybrid.decode.lattice import nbest, prune
from espnet_quant4.hybrid.openfst import FstArrays


def random_lattice(seed, layers=6, width=3, words=3):
    """States in layers; arcs lead to later layers, half of them with a word."""
    rng = np.random.default_rng(seed)
    states = layers * width + 1
    arcs = []
    for state in range(states - 1):
        layer = -1 if state == 0 else (state - 1) // width
        for target in range(1 + (layer + 1) * width, 1 + min(layer + 3, layers) * width):
            if rng.random() < 0.6:
                word = int(rng.integers(1, words + 1)) if rng.random() < 0.5 else 0
                arcs.append((state, target, word, *rng.uniform(0, 4, size=2)))
    finals = np.full((states, 2), np.inf, dtype=np.float32)
    finals[-width:] = np.stack([rng.uniform(0, 2, width), np.zeros(width)], axis=1)
    source, target, label, graph, acoustic = (
        np.array(column) for column in zip(*arcs, strict=True)
    )
    return FstArrays(
        start=0,
        finals=finals,
        source=source.astype(np.int64),
        target=target.astype(np.int64),
        ilabel=np.ones(len(arcs), dtype=np.int32),
        olabel=label.astype(np.int32),
        weight=np.stack([graph, acoustic], axis=1).astype(np.float32),
    )


def paths(lattice):
    """Yield (arcs, graph cost, acoustic cost) of each complete path."""
    first = lattice.arcs_of_states()
    waiting = [(lattice.start, (), 0.0, 0.0)]
    while waiting:
        state, taken, graph, acoustic = waiting.pop()
        if np.isfinite(lattice.finals[state, 0]):
            yield taken, graph + lattice.finals[state, 0], acoustic + lattice.finals[state, 1]
        for arc in range(first[state], first[state + 1]):
            g, a = lattice.weight[arc]
            waiting.append((lattice.target[arc], (*taken, arc), graph + g, acoustic + a))


def best_of_each(lattice):
    best = {}
    for taken, graph, acoustic in paths(lattice):
        words = tuple(int(lattice.olabel[arc]) for arc in taken if lattice.olabel[arc])
        if words not in best or graph + acoustic < sum(best[words]):
            best[words] = (acoustic, graph)
    return sorted(best.items(), key=lambda item: sum(item[1]))


@pytest.mark.parametrize("seed", range(8))
def test_the_list_holds_the_best_path_of_each_word_sequence(seed):
    lattice = random_lattice(seed)
    wanted = best_of_each(lattice)[:12]
    found = nbest(lattice, 12)
    assert [h.words for h in found] == [words for words, _ in wanted]
    for hypothesis, (_, costs) in zip(found, wanted, strict=True):
        assert (hypothesis.acoustic_cost, hypothesis.graph_cost) == pytest.approx(costs, abs=1e-4)


def test_a_short_list_comes_of_a_lattice_with_few_sequences():
    lattice = random_lattice(0, layers=2, width=1, words=1)
    every = best_of_each(lattice)
    assert [h.words for h in nbest(lattice, 50)] == [words for words, _ in every]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("beam", [0.0, 1.5, 4.0])
def test_pruning_keeps_what_is_on_a_path_within_the_beam(seed, beam):
    lattice = random_lattice(seed)
    every = [(taken, graph + acoustic) for taken, graph, acoustic in paths(lattice)]
    limit = min(cost for _, cost in every) + beam + 1e-5
    kept_arcs = {arc for taken, cost in every if cost <= limit for arc in taken}
    pruned = prune(lattice, beam + 1e-5)
    columns = ("source", "target", "olabel")
    rows = list(zip(*(getattr(lattice, name) for name in columns), strict=True))
    left = list(zip(*(getattr(pruned, name) for name in columns), strict=True))
    assert left == [rows[arc] for arc in sorted(kept_arcs)]
    within = sorted(cost for _, cost in every if cost <= limit)
    again = sorted(g + a for _, g, a in paths(pruned))
    assert again[: len(within)] == pytest.approx(within, abs=1e-4)


def test_a_lattice_too_large_to_determinize_is_pruned(monkeypatch, caplog):
    lattice = random_lattice(3, layers=8)
    wanted = [words for words, _ in best_of_each(lattice)[:3]]
    monkeypatch.setattr(module, "MAX_STATES", 60)
    assert [h.words for h in nbest(lattice, 3)] == wanted
    assert "n-best within a beam of" in caplog.text
