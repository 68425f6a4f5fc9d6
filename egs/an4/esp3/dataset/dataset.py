"""One part of the corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import soundfile
from espnet3.components.data.base_dataset import BaseDataset
from espnet3.contract import Field

from .tables import read_table


class AN4Dataset(BaseDataset):
    """A data folder's recordings and texts, in the order of their names.

    Items: ``speech``, float32 ``(samples,)``; ``text``, words; ``utt_id``, if asked for.

    Args:
        folder: a folder that the stage create_dataset has written.
        names: whether items hold the utterance's name. Decoding writes it into its files; a batch of
            training holds numbers only, so there it must be left out.

    Raises:
        FileNotFoundError: where the folder has not been written.
    """

    fields = (Field("speech", "audio"), Field("text", "text"))

    def __init__(self, folder: str, names: bool = False):
        audio, texts = read_table(Path(folder) / "wav.scp"), read_table(Path(folder) / "text")
        self.names = names
        self.utterances = [(name, audio[name], texts[name]) for name in sorted(audio)]

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name, path, text = self.utterances[int(index)]
        speech, _ = soundfile.read(path, dtype="float32")
        item = {"speech": speech, "text": text}
        return {**item, "utt_id": name} if self.names else item
