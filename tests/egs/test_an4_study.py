"""The study's scripts with its recipes replaced: what they call, with what, and their tables."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest
from egs.recipes import EGS

TRUTH = {"dev": {"dev-1": "one two", "dev-2": "three"}, "test": {"test-1": "four five six"}}
# In the place of every run.sh: what the study reads of what a recipe leaves, without a model.
RECIPE = """
import json, sys
from pathlib import Path
truth = json.loads(sys.argv[1])
given = dict(zip(sys.argv[3::2], sys.argv[4::2]))
recipe, exp, seed = sys.argv[2], Path(given["--expdir"]), int(given["--seed"])
with open(exp.parent.parent / "calls", "a") as calls:
    calls.write(json.dumps([recipe, given]) + "\\n")
prefix, name = ("asr_", "decode_asr") if recipe == "asr1" else ("hybrid_realigned_", "decode_hybrid")
rows = []
for scheme in given["--schemes"].split():
    system = Path(scheme).stem
    folder = exp / (prefix + system)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "valid.loss.ave.pth").touch()
    for part in given.get("--test_sets", "dev test").split():
        decoded = folder / (name if system == "fp32" else name + "_int4") / part
        decoded.mkdir(parents=True, exist_ok=True)
        heard = {u: t if system != "naive" else "wrong" for u, t in truth[part].items()}
        for at, texts in ((decoded, heard), (Path(given["--dumpdir"]) / "raw" / part, truth[part])):
            at.mkdir(parents=True, exist_ok=True)
            (at / "text").write_text("".join(f"{u} {t}\\n" for u, t in texts.items()))
        rows.append({"system": system, "part": part, "bits": "W4A4", "inference": "int4", "seed": seed,
                     "wer": 100.0 * (system == "naive"), "words": 3})
if recipe == "hybrid1":
    (exp / "hybrid_fp32").mkdir(exist_ok=True)
    (exp / "hybrid_fp32/valid.loss.ave.pth").touch()
if "--results" in given:
    Path(given["--results"]).write_text(json.dumps(rows))
"""


class Study:
    """The scripts in a folder of their own."""

    def __init__(self, folder):
        self.folder = folder / "egs/an4"
        self.folder.mkdir(parents=True)
        for name in ("study.sh", "ablation.sh", "study_folders.sh", "ablation.yaml"):
            shutil.copy(EGS / "an4" / name, self.folder)
        (folder / "egs/common").mkdir()
        shutil.copy(EGS / "common/driver.sh", folder / "egs/common")
        (folder / "recipe.py").write_text(RECIPE)
        python = shlex.quote(sys.executable)
        for recipe in ("asr1", "hybrid1"):
            at = self.folder / recipe
            (at / "conf").mkdir(parents=True)
            for name in ("mixed.yaml", "mixed_075.yaml"):
                shutil.copy(EGS / "an4" / recipe / "conf" / name, at / "conf")
            truth = shlex.quote(json.dumps(TRUTH))
            (at / "run.sh").write_text(
                f'#!/bin/bash\n{python} {folder}/recipe.py {truth} {recipe} "$@"\n'
            )
            (at / "run.sh").chmod(0o755)
        # The table of an ablation wants models, so only its command is seen.
        self.python = folder / "python"
        self.python.write_text(
            f'#!/bin/bash\n[ "$3" = ablation ] && {{ shift 3; echo "table $*"; exit; }}\n'
            f'exec {python} "$@"\n'
        )
        self.python.chmod(0o755)

    def run(self, script, *options):
        command = ["bash", self.folder / script, "--python", self.python, *options]
        return subprocess.run(
            list(map(str, command)), capture_output=True, text=True, env=os.environ, timeout=300
        )

    @property
    def calls(self):
        """Recipe and options of each call so far."""
        lines = (self.folder / "exp/study/calls").read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    study = Study(tmp_path_factory.mktemp("study"))
    done = study.run("study.sh", "--seeds", "1 3", "--options", "--inferences int4")
    assert done.returncode == 0, done.stdout + done.stderr
    return study, done.stdout, study.calls


def test_both_families_run_with_every_seed_and_share_data(finished):
    study, _, calls = finished
    work = study.folder / "exp/study"
    assert [(recipe, given["--seed"]) for recipe, given in calls] == [
        *(("hybrid1", "1"), ("hybrid1", "3"), ("asr1", "1"), ("asr1", "3")),
    ]
    for recipe, given in calls:
        assert given["--schemes"] == "fp32 naive tailored" and given["--inferences"] == "int4"
        assert given["--dumpdir"] == f"{work}/{recipe}/dump"
        assert given["--expdir"] == f"{work}/{recipe}/seed{given['--seed']}"
        if recipe == "asr1":
            start = f"{work}/hybrid1/seed{given['--seed']}/hybrid_fp32/valid.loss.ave.pth"
            assert given["--init_encoder"] == start and given["--ctc_config"] == ""
        else:
            assert "--init_encoder" not in given


def test_the_tables_pool_seeds(finished):
    study, shown, _ = finished
    for recipe in ("hybrid1", "asr1"):
        rows = json.loads((study.folder / f"exp/study/{recipe}/results.json").read_text())
        assert {(r["system"], r["part"], r["seed"]) for r in rows} == {
            (system, part, seed)
            for system in ("fp32", "naive", "tailored")
            for part in ("dev", "test")
            for seed in (1, 3)
        }
        table = (study.folder / f"exp/study/{recipe}/table.txt").read_text()
        assert table in shown
        assert "naive on codes against FP32, test:" in table and "100.00" in table


def test_a_transducer_without_its_start_is_refused(tmp_path):
    done = Study(tmp_path).run("study.sh", "--recipes", "asr1")
    assert done.returncode == 1
    assert "hybrid_fp32/valid.loss.ave.pth" in done.stderr and "run hybrid1 first" in done.stderr


def test_an_ablation_trains_its_variants_with_their_options(finished):
    study, _, before = finished
    done = study.run(
        *("ablation.sh", "--seeds", "3", "--only", "tailored weights_max ptq from_scratch"),
        *("--part", "test"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    work = study.folder / "exp/study"
    for recipe, prefix in (("hybrid1", "hybrid_realigned_"), ("asr1", "asr_")):
        calls = [given for name, given in study.calls[len(before) :] if name == recipe]
        schemes = f"{work}/{recipe}/schemes"
        by_schemes = {given["--schemes"].strip(): given for given in calls}
        assert set(by_schemes) == {
            f"fp32 tailored {schemes}/weights_max.yaml",
            f"fp32 {schemes}/ptq.yaml",
            f"fp32 {schemes}/from_scratch.yaml",
        }
        for given in calls:
            assert given["--stage"] == "11" and given["--stop_stage"] == "12"
            assert given["--test_sets"] == "test" and given["--seed"] == "3"
        assert "--qat" not in by_schemes[f"fp32 tailored {schemes}/weights_max.yaml"]
        assert by_schemes[f"fp32 {schemes}/ptq.yaml"]["--qat"] == "false"
        scratch = by_schemes[f"fp32 {schemes}/from_scratch.yaml"]
        assert scratch["--qat"] == "scratch"
        if recipe == "asr1":
            hybrid = f"{work}/hybrid1/seed3/hybrid_realigned_from_scratch"
            assert scratch["--init_encoder"] == f"{hybrid}/first/valid.loss.ave.pth"
            assert scratch["--ctc_config"] == ""
        table = (work / recipe / "test/ablation.txt").read_text()
        assert f"--experiments {work}/{recipe}/seed{{seed}}/{prefix}{{variant}}" in table
        assert f"--reference {work}/{recipe}/dump/raw/test/text" in table
        assert "--seeds 3" in table and "--only tailored weights_max ptq from_scratch" in table


def test_an_ablation_wants_the_studys_models(finished, tmp_path):
    done = Study(tmp_path).run("ablation.sh")
    assert done.returncode == 1 and "study.sh makes it" in done.stderr
    done = finished[0].run("ablation.sh", "--seeds", "2", "--only", "naive")
    assert done.returncode == 1 and "study.sh trains it" in done.stderr
