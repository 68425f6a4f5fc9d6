"""Prepares AN4 by the scripts of the recipe ../asr1: its stages 1 to 4."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from espnet3.components.data.dataset_builder import DatasetBuilder

RECIPES = Path(__file__).resolve().parents[3]
PREPARE = RECIPES / "common" / "prepare.py"
CORPUS = RECIPES / "an4" / "asr1" / "local" / "data.py"
PARTS = ("train", "dev", "test")
SAMPLING_RATE = 16000
# Seconds. The limit is for the cost of training; what is scored is scored as a whole.
LONGEST = {"train": 20, "dev": 1000000, "test": 1000000}


class AN4Builder(DatasetBuilder):
    """Writes what `AN4Dataset` reads, from the same corpus options as the recipe asr1 has.

    All methods take the configuration's block ``create_dataset``:

    - ``data_dir``: for the data folders of the corpus's own recordings;
    - ``dump_dir``: for the folders that training and decoding read;
    - ``downloads``: for what is unpacked or downloaded;
    - ``an4``: the corpus's folder; null looks in the places that asr1's local/data.py names;
    - ``download``: whether the corpus may be downloaded;
    - ``speed_factors``: the training part holds a copy at each of these speeds, and itself.
    """

    def is_source_prepared(self, *, data_dir: str, **_: Any) -> bool:
        return all((Path(data_dir) / part / "spk2utt").is_file() for part in PARTS)

    def prepare_source(
        self,
        *,
        data_dir: str,
        downloads: str,
        an4: str | None = None,
        download: bool = False,
        **_: Any,
    ) -> None:
        options = ["--data", data_dir, "--downloads", downloads]
        options += ["--download", "true" if download else "false"]
        if an4:
            options += ["--an4", an4]
        run(
            CORPUS,
            options,
            "Name the corpus's folder in the training configuration (create_dataset: an4) or in "
            "the environment variable AN4, or write create_dataset: download: true.",
        )

    def is_built(self, *, dump_dir: str, **_: Any) -> bool:
        # Of a folder's files this one is written last.
        return all((Path(dump_dir) / part / "feats_type").is_file() for part in PARTS)

    def build(
        self,
        *,
        data_dir: str,
        dump_dir: str,
        speed_factors: Sequence[float] = (0.9, 1.0, 1.1),
        **_: Any,
    ) -> None:
        data, dump = Path(data_dir), Path(dump_dir)
        perturbed = data / "train_sp"
        # Factor 1 adds nothing, and so stands for an empty list.
        factors = [str(factor) for factor in speed_factors] or ["1"]
        prepare("perturb", data / "train", perturbed, "--factors", *factors)
        for part in PARTS:
            source = perturbed if part == "train" else data / part
            prepare("format", source, dump / "org" / part)
            limit = str(LONGEST[part])
            prepare("filter", dump / "org" / part, dump / part, "--max_seconds", limit)


def prepare(command: str, source: Path, target: Path, *options: str) -> None:
    arguments = [command, str(source), str(target), "--fs", str(SAMPLING_RATE), *options]
    run(PREPARE, arguments, "Its message stands above.")


def run(script: Path, arguments: Sequence[str], advice: str) -> None:
    """Run a script of the recipes.

    Raises:
        RuntimeError: where it fails.
    """
    status = subprocess.run([sys.executable, str(script), *arguments]).returncode
    if status != 0:
        shown = " ".join([script.name, *arguments])
        raise RuntimeError(f"create_dataset: {shown}: exit status {status}. {advice}")
