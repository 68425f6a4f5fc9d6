"""A SentencePiece model that is part of a recognizer instead of a file beside it."""

from __future__ import annotations

from typing import Any

import sentencepiece
from espnet2.text.sentencepiece_tokenizer import SentencepiecesTokenizer


class StoredSentencepieces(SentencepiecesTokenizer):
    """ESPnet's tokenizer on the content of a SentencePiece model.

    Copies and pickles carry the content along, and need nothing of the original.

    Args:
        content: of the model file.

    Raises:
        RuntimeError: where the content is no such model.
    """

    def __init__(self, content: bytes):
        super().__init__("bpe.model")
        self.sp: Any = None
        self.content = content
        self._build_sentence_piece_processor()

    def _build_sentence_piece_processor(self) -> None:
        if self.sp is None:
            processor = sentencepiece.SentencePieceProcessor()
            processor.LoadFromSerializedProto(self.content)
            self.sp = processor

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "sp": None}
