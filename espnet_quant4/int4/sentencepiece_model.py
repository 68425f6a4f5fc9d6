"""SentencePiece's model files without what SentencePiece itself holds.

Of a model for 27 characters 240 KB are its table of Unicode normalization, which every model that names
the same rule has. It serves to read text, not to write it, and SentencePiece gives it again. Files are
protocol buffers (sentencepiece_model.proto); they are read here by their wire format, for which no
package is needed.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator

# Fields of ModelProto and NormalizerSpec.
_NORMALIZER, _NAME, _TABLE = 3, 1, 2
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def without_table(model: bytes) -> bytes:
    """Return a model without its table of normalization, if `with_table` gives the same model again."""
    try:
        spec = _content(model, _NORMALIZER)
        if not _content(spec, _TABLE):
            return model
        shorter = _replaced(model, _NORMALIZER, _replaced(spec, _TABLE, None))
        return shorter if with_table(shorter) == model else model
    except ValueError:
        # Not laid out as SentencePiece writes it: kept as it is.
        return model


def with_table(model: bytes) -> bytes:
    """Return a model with the table of the rule that it names; one that has its table as it is.

    So is what is no model, which SentencePiece refuses itself.
    """
    try:
        spec = _content(model, _NORMALIZER)
        name = _content(spec, _NAME)
    except ValueError:
        return model
    table = (
        b"" if _content(spec, _TABLE) or not name else _table_of(name.decode("utf-8", "replace"))
    )
    if not table:
        return model
    start = next((end for number, _, end, _ in _fields(spec) if number == _NAME), 0)
    spec = spec[:start] + _field(_TABLE, table) + spec[start:]
    return _replaced(model, _NORMALIZER, spec)


@functools.cache
def _table_of(rule: str) -> bytes:
    """Return SentencePiece's own table of a rule, such as ``nmt_nfkc``; empty where it has none."""
    import sentencepiece

    written = io.BytesIO()
    try:
        # A model of one character: Python is given a rule's table in no other way.
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["a"]),
            model_writer=written,
            model_type="char",
            vocab_size=8,
            hard_vocab_limit=False,
            normalization_rule_name=rule,
            minloglevel=3,
        )
    except (RuntimeError, OSError, ValueError):
        return b""
    return _content(_content(written.getvalue(), _NORMALIZER), _TABLE)


def _fields(message: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield number, first byte, end and content of each field; content only of those with a length."""
    at = 0
    while at < len(message):
        start = at
        tag, at = _varint(message, at)
        content = b""
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(message, at)
        elif kind == _LENGTH:
            size, at = _varint(message, at)
            content = message[at : at + size]
            at += size
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"no protocol buffer: wire type {kind} at byte {start}")
        if at > len(message):
            raise ValueError(f"no protocol buffer: it ends within the field at byte {start}")
        yield tag >> 3, start, at, content


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Return a number of 7 bits a byte, lowest first, and where it ends."""
    value = shift = 0
    while at < len(message) and shift < 64:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError(f"no protocol buffer: a number has no end at byte {at}")


def _content(message: bytes, wanted: int) -> bytes:
    """Return the content of a field; empty where there is none."""
    return next((content for number, _, _, content in _fields(message) if number == wanted), b"")


def _field(number: int, content: bytes) -> bytes:
    return _number(number << 3 | _LENGTH) + _number(len(content)) + content


def _number(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def _replaced(message: bytes, wanted: int, content: bytes | None) -> bytes:
    """Return a message with another content of a field, or without it."""
    pieces = []
    for number, start, end, _ in _fields(message):
        if number != wanted:
            pieces.append(message[start:end])
        elif content is not None:
            pieces.append(_field(number, content))
    return b"".join(pieces)
