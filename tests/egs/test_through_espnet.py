"""AN4's transducer recipe through ESPnet's own asr.sh, beside the plain driver."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from egs.espnet_checkout import CHECKOUT, copy_recipes, needs_checkout
from egs.look_alike import write_corpus
from egs.recipes import EGS, run_recipe

from espnet_quant4.report.sctk import find_program

CONF = EGS / "an4" / "asr1" / "conf"


def write_tiny(folder):
    """Write the recipe's configurations with small networks and two short epochs."""
    folder.mkdir()
    for path in CONF.glob("train_asr_*.yaml"):
        conf = yaml.safe_load(path.read_text())
        conf["encoder_conf"].update(hidden_size=12, output_size=12, num_layers=1)
        if "decoder_conf" in conf:
            conf["decoder_conf"].update(hidden_size=12)
            conf["joint_net_conf"].update(joint_space_size=12)
        conf.update(max_epoch=1, keep_nbest_models=1, num_workers=0, num_iters_per_epoch=8)
        (folder / path.name).write_text(yaml.safe_dump(conf))
    decode = yaml.safe_load((CONF / "decode_asr.yaml").read_text())
    (folder / "decode_asr.yaml").write_text(yaml.safe_dump({**decode, "beam_size": 1}))


def run(python, recipe, *options, **environment):
    return run_recipe([recipe / "run.sh", "--python", python, *options], **environment).stdout


@pytest.fixture(scope="module")
def both(tmp_path_factory, warm_python):
    """The recipe's folder after a run each way, with the options of both."""
    folder = tmp_path_factory.mktemp("two_ways")
    write_corpus(folder / "corpus", utterances_a_speaker=6)
    write_tiny(folder / "tiny")
    recipe = copy_recipes(folder) / "an4" / "asr1"
    options = [
        *("--local_data_opts", f"--an4 {folder}/corpus --downloads {folder}/downloads", "--nj", 1),
        *(f"--{name}_config={folder}/tiny/train_asr_{file}.yaml" for name, file in
          (("asr", "fp32"), ("qat", "qat"))),
        *("--ctc_config", "", "--inference_config", folder / "tiny/decode_asr.yaml"),
        # What asr.sh reads, in both ways.
        *("--feats_type", "raw", "--asr_args", "--batch_bins 240000"),
        *("--speed_perturb_factors", "1.0 1.1", "--schemes", "fp32 tailored"),
        *("--calibration_batches", 2, "--inferences", "int4", "--stop_stage", 14),
    ]  # fmt: skip
    skipped = [] if find_program("sclite") else ["--espnet_args", "--skip_stages 13"]
    plain = [f"--{name}dir=plain_{name}" for name in ("data", "dump", "exp")]
    run(warm_python, recipe, *options, *plain)
    run(warm_python, recipe, *options, *skipped, ESPNET_ROOT=str(CHECKOUT))
    return recipe, options


@needs_checkout
@pytest.mark.slow
def test_both_ways_give_the_same_numbers(both):
    recipe, _ = both
    rows = {}
    for way in ("plain_exp", "exp"):
        rows[way] = json.loads((recipe / way / "results.json").read_text())
        for row in rows[way]:
            assert row.pop("rtf") > 0
            # An INT4 file holds the training's options, and in them the names of its folders.
            row["size_bytes"] = round(row["size_bytes"], -2)
    assert rows["exp"] == rows["plain_exp"]
    assert len(rows["exp"]) == 4 and {row["part"] for row in rows["exp"]} == {"dev", "test"}
    for system, decoding in (("fp32", "decode_asr"), ("tailored", "decode_asr_int4")):
        for part, plain in (("org/dev", "dev"), ("test", "test")):
            found = (recipe / f"exp/asr_{system}/{decoding}" / part / "text").read_text()
            assert found == (recipe / f"plain_exp/asr_{system}/{decoding}/{plain}/text").read_text()
        (packed,) = (recipe / f"exp/asr_{system}").glob("*.zip")
        assert packed.stat().st_size > 10000


@needs_checkout
@pytest.mark.slow
def test_what_is_done_is_passed_over(both, warm_python):
    recipe, options = both
    before = (recipe / "exp/results.json").stat().st_mtime_ns
    last = ("--stage", 11, "--stop_stage", 12)
    shown = run(warm_python, recipe, *options, *last, ESPNET_ROOT=str(CHECKOUT))
    assert shown.count("trained already") == 2 and shown.count("decoded already") == 2
    assert "asr.sh" not in shown
    assert (recipe / "exp/results.json").stat().st_mtime_ns == before


@needs_checkout
def test_dry_run_shows_every_stage_and_changes_nothing(tmp_path):
    recipe = copy_recipes(tmp_path) / "an4" / "asr1"
    before = {p for p in tmp_path.rglob("*") if not p.is_symlink()}
    command = [
        recipe / "run.sh",
        "--python",
        sys.executable,
        "--dry_run",
        "true",
        "--stop_stage",
        14,
    ]
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        env={**os.environ, "ESPNET_ROOT": str(CHECKOUT)},
        timeout=300,
    )
    shown = done.stdout
    for number in (1, 3, 4, 5, 10, 11, 12, 13, 14):
        assert f"stage {number} of asr.sh" in shown
    assert shown.count("bin.main calibrate") == 2 and shown.count("bin.main convert") == 2
    assert "--pretrained_model exp/asr_tailored/calibrated.pth" in shown
    assert "what the recipe needs" in shown and "package  torch" in shown
    assert {p for p in tmp_path.rglob("*") if not p.is_symlink()} == before
    assert done.returncode == (0 if "nothing is missing" in shown else 1), done.stderr


def test_a_folder_that_is_no_checkout_is_refused(tmp_path):
    recipe = copy_recipes(tmp_path) / "an4" / "asr1"
    done = subprocess.run(
        [str(recipe / "run.sh"), "--python", sys.executable],
        capture_output=True,
        text=True,
        env={**os.environ, "ESPNET_ROOT": str(tmp_path)},
        timeout=60,
    )
    assert done.returncode != 0
    assert f"ESPNET_ROOT={tmp_path} is no checkout" in done.stderr and "git clone" in done.stderr
