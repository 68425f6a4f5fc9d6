"""Reading the tables of Kaldi-style data folders."""

from __future__ import annotations

from pathlib import Path

from espnet_quant4.report.results import read_text


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
    return read_text(path)


def training_texts(folder: str | Path) -> list[str]:
    """Return the texts of a data folder, for the stage train_tokenizer."""
    return list(read_table(Path(folder) / "text").values())
