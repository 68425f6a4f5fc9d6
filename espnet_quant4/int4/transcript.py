"""From tokens to what a reader wants: text, words, and when they were said."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

SPACE = "<space>"
WORD_START = "\N{LOWER ONE EIGHTH BLOCK}"  # of SentencePiece

# <0xE2>: a byte that SentencePiece joins with its neighbours.
_SPECIAL = re.compile(r"<(?!space>|0x[0-9A-Fa-f]{2}>).+>")


@dataclass(frozen=True)
class Word:
    """A word.

    Attributes:
        word: as written.
        start: where the encoder frame of its first token begins, in seconds; None where no frame is
            known.
        end: where the frame of its last token ends.
    """

    word: str
    start: float | None
    end: float | None


@dataclass(frozen=True)
class Transcript:
    """What was recognized in a recording.

    Attributes:
        text: without special symbols; see `TokenText`.
        tokens: all that the search put out.
        token_start: where the encoder frame of each token begins, in seconds; None where the search
            does not tell.
        words: None where the kind of tokens does not tell words.
        score: log probability, as the search counts it.
    """

    text: str
    tokens: list[str]
    token_start: list[float] | None
    words: list[Word] | None
    score: float


class TokenText:
    """Makes text of a recognizer's tokens.

    Symbols in angle brackets, such as ``<unk>`` and ``<sos/eos>``, are no text and are left out, but
    for ``<space>`` and SentencePiece's bytes. Without a ``token_type`` tokens are joined as their list
    suggests: pieces of SentencePiece where one begins with its mark of a word, characters where
    ``<space>`` is a token, else words.

    Args:
        recognizer: ESPnet's ``Speech2Text``.
    """

    def __init__(self, recognizer: Any):
        token_list = list(recognizer.asr_model.token_list)
        token_type = getattr(recognizer.asr_train_args, "token_type", None)
        tokenizer = recognizer.tokenizer
        self._join: Callable[[list[str]], str]
        self._kind = _kind(token_type, token_list)
        if tokenizer is not None:
            self._join = tokenizer.tokens2text
        else:
            self._join = {"pieces": _join_pieces, "characters": _join_characters}.get(
                self._kind, " ".join
            )

    def text(self, tokens: Sequence[str]) -> str:
        """Return the text of tokens."""
        kept = [token for token in tokens if not is_special(token)]
        return str(self._join(kept)) if kept else ""

    def words(self, tokens: Sequence[str]) -> list[tuple[str, int, int]] | None:
        """Return the words of tokens, each with the numbers of its first and last token.

        None for tokens of a kind whose words are not known, such as Whisper's.
        """
        if self._kind == "unknown":
            return None
        groups: list[list[int]] = [[]]
        for number, token in enumerate(tokens):
            if is_special(token):
                continue
            begins = self._kind == "words" or token == SPACE or token.startswith(WORD_START)
            if begins and groups[-1]:
                groups.append([])
            if token != SPACE:
                groups[-1].append(number)
        found = []
        for group in groups:
            text = self.text([tokens[number] for number in group]).strip()
            if text:
                found.append((text, group[0], group[-1]))
        return found

    def transcript(
        self,
        tokens: Sequence[str],
        token_frames: Sequence[int] | None,
        frame_seconds: float | None,
        score: float,
    ) -> Transcript:
        """Return tokens with text, words and times.

        Args:
            tokens: in order.
            token_frames: encoder frame of each, or None.
            frame_seconds: from one encoder frame to the next, or None.
            score: of the search.
        """
        starts = None
        if token_frames is not None and frame_seconds is not None:
            starts = [round(frame_seconds * frame, 3) for frame in token_frames]
        words = None
        found = self.words(tokens)
        if found is not None:
            words = [
                Word(
                    text,
                    None if starts is None else starts[first],
                    None if starts is None else round(starts[last] + float(frame_seconds or 0), 3),
                )
                for text, first, last in found
            ]
        return Transcript(self.text(tokens), list(tokens), starts, words, score)


def is_special(token: str) -> bool:
    """Whether a token is a symbol in angle brackets that stands for no text."""
    return _SPECIAL.fullmatch(token) is not None


def _kind(token_type: str | None, token_list: Sequence[str]) -> str:
    kinds = {"bpe": "pieces", "char": "characters", "phn": "characters", "word": "words"}
    if token_type is not None:
        return kinds.get(token_type, "unknown")
    if any(token.startswith(WORD_START) for token in token_list):
        return "pieces"
    return "characters" if SPACE in token_list else "words"


def _join_pieces(tokens: list[str]) -> str:
    return "".join(tokens).replace(WORD_START, " ").strip()


def _join_characters(tokens: list[str]) -> str:
    return "".join(" " if token == SPACE else token for token in tokens)
