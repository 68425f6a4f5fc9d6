"""G: the costs of sentences, from an ARPA file and from whole sentences."""

import itertools
import math

import pytest

from espnet_quant4.hybrid.decode.language_models import GrammarCost
from espnet_quant4.hybrid.graph.arpa import END, LanguageModelError, write_arpa
from espnet_quant4.hybrid.graph.grammar import arpa_to_fst, phrase_grammar
from espnet_quant4.hybrid.graph.ngram import estimate

WORDS = {"<eps>": 0, "a": 1, "b": 2, "c": 3, "#0": 4, "<s>": 5, "</s>": 6}
SENTENCES = [s.split() for s in ("a b", "a b c", "a c", "b", "c c a b", "a b")]


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("".join(f"{word} {number}\n" for word, number in WORDS.items()))
    return path


def cost_of(grammar, words):
    path = words.with_name("G.fst")
    grammar.write(str(path))
    return GrammarCost(path, words)


def cheapest(model, sentence):
    """The cost where any history may back off although the model has the n-gram, as in G."""

    def cost(history, rest):
        if not rest:
            return 0.0
        ngram = (*history, rest[0])
        found = []
        if ngram in model.log10_probs:
            after = ngram[-(model.order - 1) :] if model.order > 1 else ()
            while after and after not in model.log10_probs:
                after = after[1:]
            found.append(-model.log10_probs[ngram] + cost(after, rest[1:]))
        if history:
            found.append(-model.log10_backoffs.get(history, 0.0) + cost(history[1:], rest))
        return min(found)

    start = ("<s>",) if model.order > 1 else ()
    return math.log(10) * cost(start, (*sentence, END))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_g_costs_what_the_arpa_file_says(tmp_path, words, order):
    model = estimate(SENTENCES, ["a", "b", "c"], order)
    write_arpa(model, tmp_path / "lm.arpa")
    grammar, left_out = arpa_to_fst(tmp_path / "lm.arpa", words)
    assert left_out == []
    cost = cost_of(grammar, words)
    for length in range(4):
        for sentence in itertools.product("abc", repeat=length):
            assert cost(sentence) == pytest.approx(cheapest(model, sentence), abs=1e-4)
            assert cost(sentence) <= -model.log_prob(sentence) + 1e-4


def test_words_without_pronunciation_are_left_out_and_listed(tmp_path, words):
    write_arpa(estimate([*SENTENCES, ["x", "a"], ["y"]], "abcxy", 2), tmp_path / "lm.arpa")
    grammar, left_out = arpa_to_fst(tmp_path / "lm.arpa", words)
    assert left_out == ["x", "y"]
    assert cost_of(grammar, words)("ab") < math.inf


def test_a_language_model_of_other_words_is_an_error(tmp_path, words):
    write_arpa(estimate([["A", "B"]], "AB", 2), tmp_path / "lm.arpa")
    with pytest.raises(LanguageModelError, match="none of its words is in .*upper and lower case"):
        arpa_to_fst(tmp_path / "lm.arpa", words)


def test_phrases_have_their_share_of_the_text_and_nothing_else_is_accepted(words):
    grammar, left_out = phrase_grammar([*SENTENCES, [], ["a", "z"], ["#0"]], WORDS)
    assert left_out == ["#0", "a z"]
    cost = cost_of(grammar, words)
    assert cost("ab") == pytest.approx(-math.log(2 / 6), abs=1e-5)
    assert cost("ccab") == pytest.approx(-math.log(1 / 6), abs=1e-5)
    every = itertools.chain.from_iterable(itertools.product("abc", repeat=n) for n in range(6))
    costs = {sentence: cost(sentence) for sentence in every}
    assert sum(math.exp(-c) for c in costs.values()) == pytest.approx(1, abs=1e-5)
    accepted = {sentence for sentence, c in costs.items() if c < math.inf}
    assert accepted == {tuple(sentence) for sentence in SENTENCES}


def test_equal_ends_of_phrases_are_shared():
    grammar, _ = phrase_grammar([["a", "b", "c"], ["b", "b", "c"], ["c", "b", "c"]], WORDS)
    assert grammar.num_states == 4


def test_no_phrase_of_known_words_is_an_error():
    with pytest.raises(LanguageModelError, match="no sentence of known words is left"):
        phrase_grammar([["z"], []], WORDS)
