"""The Switchboard recipes' data scripts: where they look, and what they leave behind."""

import os
import subprocess
import sys

import pytest
from corpora.switchboard_disks import Eval2000, Switchboard
from egs.recipes import REPOSITORY


@pytest.fixture
def corpora(tmp_path):
    folder = tmp_path / "corpora"
    switchboard = Switchboard(folder)
    for call in (2001, 2005):
        switchboard.add(call)
    Eval2000(folder)
    return folder


def run(tmp_path, recipe, *options, **environment):
    script = REPOSITORY / "egs" / "swbd" / recipe / "local" / "data.sh"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environment}
    command = [str(script), "--python", sys.executable, "--dev_utterances", "2", *options]
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)


def test_transducer_recipe_reads_db_sh(tmp_path, corpora):
    (tmp_path / "db.sh").write_text(f"SWBD={corpora}\n")
    done = run(tmp_path, "asr1", SWBD="/nowhere")
    assert done.returncode == 0, done.stderr
    for part in ("train_nodup", "train_dev", "eval2000"):
        assert (tmp_path / "data" / part / "segments").exists()


def test_hybrid_recipe_reads_the_environment_where_db_sh_says_nothing(tmp_path, corpora):
    (tmp_path / "db.sh").write_text("SWBD=\n")
    done = run(tmp_path, "hybrid1", "--data", "other", SWBD=str(corpora))
    assert done.returncode == 0, done.stderr
    for part in ("train", "dev", "eval2000"):
        assert not (tmp_path / "other" / part / "segments").exists()
    assert (tmp_path / "other" / "local" / "dict" / "lexicon.txt").exists()


def test_nothing_given_is_said(tmp_path):
    done = run(tmp_path, "asr1", SWBD="")
    assert done.returncode == 1
    assert "SWBD in ESPnet's db.sh" in done.stderr
