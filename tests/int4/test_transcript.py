"""Text and words of tokens."""

from types import SimpleNamespace

import pytest
from espnet2.text.char_tokenizer import CharTokenizer
from espnet2.text.word_tokenizer import WordTokenizer

from espnet_quant4.int4.transcript import TokenText, Word, is_special

CHARACTERS = ["<blank>", "<unk>", "<space>", "a", "b", "<", ">", "<sos/eos>"]
PIECES = ["<blank>", "<unk>", "▁a", "b", "▁", "<sos/eos>"]
WORDS = ["<blank>", "<unk>", "hello", "world", "<noise>", "<sos/eos>"]


def token_text(token_type, token_list, tokenizer=None):
    return TokenText(
        SimpleNamespace(
            asr_model=SimpleNamespace(token_list=token_list),
            asr_train_args=SimpleNamespace(token_type=token_type),
            tokenizer=tokenizer,
        )
    )


@pytest.mark.parametrize(
    ("token", "special"),
    [("<unk>", True), ("<sos/eos>", True), ("<blank>", True), ("<noise>", True), ("<space>", False),
     ("<0xE2>", False), ("<", False), ("<>", False), ("a<b>", False), ("[noise]", False)],
)  # fmt: skip
def test_symbols_in_angle_brackets_are_special(token, special):
    assert is_special(token) is special


def test_special_symbols_are_no_text():
    text = token_text("char", CHARACTERS, CharTokenizer())
    tokens = ["<unk>", "a", "<sos/eos>", "b", "<space>", "<unk>", "<space>", "<", ">"]
    assert text.text(tokens) == "ab  <>"
    assert text.text(["<unk>", "<sos/eos>"]) == "" == text.text([])
    assert text.words(tokens) == [("ab", 1, 3), ("<>", 7, 8)]


@pytest.mark.parametrize(
    ("token_list", "tokens", "expected"),
    [
        (CHARACTERS, ["a", "b", "<space>", "a"], "ab a"),
        (PIECES, ["▁a", "b", "<unk>", "▁", "b"], "ab b"),
        (WORDS, ["hello", "<noise>", "world"], "hello world"),
    ],
)
def test_without_a_token_type_the_list_tells(token_list, tokens, expected):
    text = token_text(None, token_list)
    assert text.text(tokens) == expected
    assert " ".join(word for word, _, _ in text.words(tokens)) == expected


def test_words_have_the_times_of_their_tokens():
    text = token_text("char", CHARACTERS, CharTokenizer())
    tokens = ["<space>", "a", "b", "<unk>", "<space>", "b"]
    found = text.transcript(tokens, [0, 2, 3, 4, 5, 9], 0.03, -1.5)
    assert found.tokens == tokens and found.score == -1.5
    assert found.token_start == [0.0, 0.06, 0.09, 0.12, 0.15, 0.27]
    assert found.words == [Word("ab", 0.06, 0.12), Word("b", 0.27, 0.3)]
    untimed = text.transcript(tokens, None, 0.03, 0.0)
    assert untimed.token_start is None and untimed.words[0] == Word("ab", None, None)
    assert text.transcript(tokens, [0] * 6, None, 0.0).token_start is None


def test_words_as_tokens():
    text = token_text("word", WORDS, WordTokenizer())
    assert text.text(["hello", "<unk>", "world"]) == "hello world"
    assert text.words(["hello", "<unk>", "world"]) == [("hello", 0, 0), ("world", 2, 2)]


def test_unknown_kinds_of_tokens_have_no_words():
    text = token_text("whisper_en", WORDS, WordTokenizer())
    assert text.words(["hello"]) is None and text.transcript(["hello"], [0], 0.1, 0.0).words is None
