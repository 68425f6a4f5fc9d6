"""N-grams: probabilities by hand and in sum, and what is written is what is read."""

import itertools
import math

import pytest

from espnet_quant4.hybrid.graph.arpa import END, LanguageModelError, write_arpa
from espnet_quant4.hybrid.graph.arpa_reader import read_arpa
from espnet_quant4.hybrid.graph.ngram import estimate

SENTENCES = [s.split() for s in ("a b", "a b c", "a c", "b", "c c a b", "a b", "")]
VOCABULARY = ["a", "b", "c", "never"]


def prob(model, *words):
    *history, word = words
    return 10 ** model.log10_prob(tuple(history), word)


def test_probabilities_by_hand():
    model = estimate([["a", "b"], ["a"]], ["a", "b", "d"], order=2)
    # Unigrams: a twice, b once, the end twice: 5 tokens of 3 kinds; 4 words share the rest.
    assert prob(model, "a") == pytest.approx((2 + 3 / 4) / 8)
    assert prob(model, "d") == pytest.approx(3 / 4 / 8)
    # After a: b once, the end once: 2 tokens of 2 kinds.
    unigram_b = (1 + 3 / 4) / 8
    assert prob(model, "a", "b") == pytest.approx((1 + 2 * unigram_b) / 4)
    # Not seen after a: half of the mass goes to unigrams.
    assert prob(model, "a", "d") == pytest.approx(0.5 * 3 / 32)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_sum_to_one_after_every_history(order):
    model = estimate(SENTENCES, VOCABULARY, order)
    assert model.order == order
    histories = itertools.chain.from_iterable(
        itertools.product(["<s>", *VOCABULARY], repeat=length) for length in range(3)
    )
    for history in histories:
        total = sum(prob(model, *history, word) for word in [*VOCABULARY, END])
        assert total == pytest.approx(1.0, abs=1e-9), history


def test_longer_histories_fit_the_training_text_better():
    perplexities = [estimate(SENTENCES, VOCABULARY, n).perplexity(SENTENCES) for n in (1, 2, 3)]
    assert perplexities == sorted(perplexities, reverse=True)
    assert perplexities[0] < len(VOCABULARY) + 1


def test_a_sentence_is_the_product_of_its_words():
    model = estimate(SENTENCES, VOCABULARY, 3)
    product = (
        prob(model, "<s>", "a") * prob(model, "<s>", "a", "never") * prob(model, "a", "never", END)
    )
    assert model.log_prob(["a", "never"]) == pytest.approx(math.log(product))


@pytest.mark.parametrize("name", ["lm.arpa", "lm.arpa.gz"])
def test_what_is_written_is_read(tmp_path, name):
    model = estimate(SENTENCES, VOCABULARY, 3)
    path = tmp_path / "lm.arpa"
    write_arpa(model, path)
    if name.endswith(".gz"):
        import gzip

        (tmp_path / name).write_bytes(gzip.compress(path.read_bytes()))
    back = read_arpa(tmp_path / name)
    assert back.log10_probs == pytest.approx(model.log10_probs, abs=1e-6)
    assert back.log10_backoffs == pytest.approx(model.log10_backoffs, abs=1e-6)
    assert sorted(back.words) == sorted(VOCABULARY)


def test_unknown_words_count_as_unk_or_are_an_error():
    model = estimate(SENTENCES, VOCABULARY, 2)
    with pytest.raises(LanguageModelError, match="neither 'z' nor <unk> nor <UNK>"):
        model.log_prob(["a", "z"])
    model = estimate([*SENTENCES, ["a", "<UNK>"]], [*VOCABULARY, "<UNK>"], 2)
    assert model.log_prob(["a", "z"]) == model.log_prob(["a", "<UNK>"])


@pytest.mark.parametrize(
    ("sentences", "order", "message"),
    [
        (SENTENCES, 4, "order 4; valid: 1, 2, 3"),
        ([[], []], 2, "no sentence with words"),
        ([["a", "z"]], 2, "vocabulary lacks, such as z"),
    ],
)
def test_what_cannot_be_estimated_is_an_error(sentences, order, message):
    with pytest.raises(LanguageModelError, match=message):
        estimate(sentences, VOCABULARY, order)
