"""Reading the tables of Kaldi-style data folders."""

from __future__ import annotations

from pathlib import Path


def read_table(path: str | Path) -> dict[str, str]:
    """Read ``key value...`` lines.

    Raises:
        FileNotFoundError: where there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there; run the stage that writes it: --stages create_dataset"
        )
    lines = path.read_text(encoding="utf-8").splitlines()
    return {key: value for key, _, value in (line.partition(" ") for line in lines)}


def training_texts(folder: str | Path) -> list[str]:
    """Return the texts of a data folder, for the stage train_tokenizer."""
    return list(read_table(Path(folder) / "text").values())
