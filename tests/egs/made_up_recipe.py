"""A recipe in a temporary folder, whose driver runs with ESPnet's commands replaced."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile
from egs.recipes import EGS, REPOSITORY

FAKE = Path(__file__).with_name("fake_espnet.py")


class Recipe:
    """A made-up recipe in a folder of its own, with four utterances a part.

    Args:
        folder: where it is made.
        driver: of egs/common.
    """

    def __init__(self, folder, driver="asr.sh"):
        self.folder = folder
        self.driver = driver
        self.environment = {
            **os.environ,
            "FAKE_CALLS": str(folder / "calls"),
            "PYTHONPATH": str(REPOSITORY),
            "OMP_NUM_THREADS": "1",
        }
        self.environment.pop("ESPNET_ROOT", None)
        (folder / "local").mkdir()
        (folder / "conf").mkdir()
        for name in ("path.sh", "cmd.sh"):
            shutil.copy(EGS / "an4" / "asr1" / name, folder / name)
        self.python = folder / "python"
        self.script(self.python, f'exec "{sys.executable}" "{FAKE}" "$@"')
        recordings = folder / "recordings"
        recordings.mkdir()
        for part in ("train", "dev", "test"):
            (recordings / part).mkdir()
            tables = {"wav.scp": "", "text": "", "utt2spk": ""}
            for i in range(4):
                wav = recordings / part / f"{i}.wav"
                soundfile.write(wav, np.full(4000, 0.1), 8000)
                tables["wav.scp"] += f"{part}-{i} {wav}\n"
                tables["text"] += f"{part}-{i} ab c\n"
                tables["utt2spk"] += f"{part}-{i} {part}\n"
            for name, text in tables.items():
                (recordings / part / name).write_text(text)
        self.script(folder / "local" / "data.sh", f'mkdir -p data; cp -rp "{recordings}"/* data')
        dictionary = recordings / "local" / "dict"
        dictionary.mkdir(parents=True)
        (dictionary / "lexicon.txt").write_text("ab A B\nc C\n")
        (folder / "conf" / "decode_hybrid.yaml").write_text("")

    def script(self, path, text):
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)

    def command(self, *options):
        return [
            str(EGS / "common" / self.driver),
            *("--fs", "8000", "--python", str(self.python), *map(str, options)),
        ]

    def run(self, *options, **environment):
        (self.folder / "calls").write_text("")
        return subprocess.run(
            self.command(*options),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=240,
            env={**self.environment, **environment},
        )

    @property
    def calls(self):
        """`[(command, options)]` of the last run."""
        return [tuple(json.loads(line)) for line in (self.folder / "calls").open()]

    def outputs(self, command):
        return [Path(o["output_dir"][0]).name for c, o in self.calls if c == command]
