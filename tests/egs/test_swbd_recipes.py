"""Switchboard's recipes from the LDC's folders to Hub5 scores, on made-up calls with tiny networks."""

import json
import sys

import pytest
import yaml
from egs.espnet_checkout import CHECKOUT, copy_recipes, needs_checkout
from egs.recipes import EGS, UNADORNED, run_recipe
from egs.switchboard_look_alike import write_corpora

from espnet_quant4.report.sctk import find_program

SWBD = EGS / "swbd"
TINY = UNADORNED
needs_sctk = pytest.mark.skipif(
    find_program("hubscr.pl") is None, reason="no hubscr.pl: Debian's sctk"
)


def run(recipe, *options, status=0, python=sys.executable, **environment):
    command = [recipe / "run.sh", "--python", python, *options]
    done = run_recipe(command, status, **{"ESPNET_ROOT": str(CHECKOUT), **environment})
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """Folder of the LDC's folders, and the words of Hub5's STM."""
    folder = tmp_path_factory.mktemp("ldc")
    return folder, write_corpora(folder)


def hub5_of(folder):
    return {row["part"]: row for row in json.loads((folder / "hub5.json").read_text())}


@needs_checkout
@needs_sctk
@pytest.mark.slow
def test_transducer_recipe_runs_from_disks_to_hub5(tmp_path, corpora, warm_python):
    folder, words = corpora
    recipe = copy_recipes(tmp_path) / "swbd" / "asr1"
    for name in ("train_asr_fp32", "train_asr_qat"):
        conf = yaml.safe_load((SWBD / f"asr1/conf/{name}.yaml").read_text())
        conf["encoder_conf"].update(hidden_size=12, output_size=12, num_layers=1)
        conf["decoder_conf"].update(hidden_size=12, embed_size=4)
        conf["joint_net_conf"].update(joint_space_size=12)
        conf.update(TINY, max_epoch=1, batch_type="unsorted", batch_size=8)
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(conf))
    run(
        recipe,
        *("--local_data_opts", "--dev_utterances 6", "--speed_perturb_factors", ""),
        *("--ngpu", 0, "--nj", 1, "--stats_nj", 1, "--inference_nj", 2, "--calibration_batches", 2),
        *("--asr_config", tmp_path / "train_asr_fp32.yaml"),
        *("--qat_config", tmp_path / "train_asr_qat.yaml"),
        *("--inference_config", recipe / "conf/decode_asr_greedy.yaml"),
        *("--schemes", "fp32 tailored", "--inferences", "int4"),
        SWBD=str(folder),
        python=warm_python,
    )
    rows = json.loads((recipe / "exp/results.json").read_text())
    assert [(r["system"], r["part"], r["inference"]) for r in rows] == [
        ("fp32", "train_dev", "float"),
        ("fp32", "eval2000", "float"),
        ("tailored", "train_dev", "int4"),
        ("tailored", "eval2000", "int4"),
    ]
    assert rows[2]["bits"] == "W4A4"
    for system, decoding in (
        ("fp32", "decode_asr_greedy"),
        ("tailored", "decode_asr_greedy_int4"),
    ):
        scores = hub5_of(recipe / f"exp/asr_{system}/{decoding}/eval2000/score_hub5")
        assert scores["All"]["words"] == len(words)
        assert (
            scores["All"]["words"] == scores["Switchboard"]["words"] + scores["CallHome"]["words"]
        )


@needs_checkout
@needs_sctk
@pytest.mark.slow
def test_hybrid_recipe_runs_from_disks_to_hub5(tmp_path, corpora, warm_python):
    pytest.importorskip("kaldi_hmm_gmm")
    folder, words = corpora
    recipe = copy_recipes(tmp_path) / "swbd" / "hybrid1"
    for name, rate in (("train_hybrid_fp32", 0.01), ("train_hybrid_qat", 0.002)):
        conf = yaml.safe_load((SWBD / f"hybrid1/conf/{name}.yaml").read_text())
        conf["encoder_conf"].update(hidden_size=24, output_size=24, num_layers=1, dropout=0.0)
        conf["model_conf"].update(bottleneck_size=24, chunk_conf={"mode": "none"})
        conf.update(
            TINY, batch_type="unsorted", batch_size=4, optim="adam", optim_conf={"lr": rate}
        )
        conf.update(max_epoch=4 if "fp32" in name else 1)
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(conf))
    run(
        recipe,
        *("--local_data_opts", "--dev_utterances 6", "--speed_perturb_factors", ""),
        *("--ngpu", 0, "--nj", 1, "--inference_nj", 1, "--calibration_batches", 2),
        *("--mono_args", "--gaussians 40 --iterations 10", "--triphone_args", "--iterations 8"),
        *("--leaves", 30, "--gaussians", 60, "--lm_order", 2, "--nbest", 5),
        *("--hybrid_config", tmp_path / "train_hybrid_fp32.yaml"),
        *("--qat_config", tmp_path / "train_hybrid_qat.yaml"),
        *("--schemes", "fp32 tailored", "--inferences", "int4", "--test_sets", "eval2000"),
        SWBD=str(folder),
        python=warm_python,
    )
    rows = json.loads((recipe / "exp/results.json").read_text())
    assert [(r["system"], r["part"]) for r in rows] == [
        ("gmm", "eval2000"),
        ("fp32", "eval2000"),
        ("tailored", "eval2000"),
    ]
    for row in rows:
        # Eight words at random would get seven of eight wrong.
        assert row["words"] == len(words) and row["wer"] < 60, row
    scores = hub5_of(recipe / "exp/hybrid_tailored/decode_hybrid_int4/eval2000/score_hub5")
    assert scores["All"]["words"] == len(words)
    assert scores["All"]["wer"] == pytest.approx(rows[2]["wer"], abs=5)


@needs_checkout
@pytest.mark.parametrize("name", ["asr1", "hybrid1"])
def test_dry_run_names_what_is_missing(tmp_path, name):
    recipe = copy_recipes(tmp_path) / "swbd" / name
    shown = run(recipe, "--dry_run", "true", status=1, SWBD=str(tmp_path / "nowhere"))
    assert "MISSING  folder   SWBD" in shown and f"no folder {tmp_path}/nowhere" in shown
    for number in (1, 2, 3, 4):
        assert f"stage {number} of asr.sh" in shown
    assert "--dev_set" in shown or "local/data.sh" in shown or "--local_data_opts" in shown
    for command in ("calibrate", "convert"):
        assert command in shown
    assert "LDC2002T43" in shown
    assert not (recipe / "exp").exists() and not (recipe / "data").exists()


@needs_checkout
@pytest.mark.parametrize("name", ["asr1", "hybrid1"])
def test_dry_run_with_a_python_that_lacks_the_plugin_says_which_and_what_to_do(tmp_path, name):
    recipe = copy_recipes(tmp_path) / "swbd" / name
    bare = tmp_path / "python3"
    bare.write_text(f'#!/bin/bash\nexec "{sys.executable}" -IS "$@"\n')
    bare.chmod(0o755)
    shown = run(recipe, "--dry_run", "true", status=2, python=bare, SWBD=str(tmp_path))
    assert f"--python {bare} is {bare}, which lacks: espnet_quant4" in shown
    assert "ModuleNotFoundError" not in shown and "No module named" not in shown


@needs_checkout
@pytest.mark.parametrize("name", ["asr1", "hybrid1"])
def test_dry_run_reads_the_corpora(tmp_path, corpora, name):
    folder, _ = corpora
    recipe = copy_recipes(tmp_path) / "swbd" / name
    shown = run(
        recipe,
        *("--dry_run", "true", "--local_data_opts", "--dev_utterances 6"),
        # Not sox, which this machine need not have.
        *("--needs", "--packages lhotse", "--speed_perturb_factors", "", "--stop_stage", 1),
        SWBD=str(folder),
    )
    assert "would write" in shown and "utterances" in shown
    assert not (recipe / "data").exists()


@pytest.mark.parametrize("name", ["asr1", "hybrid1"])
def test_without_a_checkout_it_says_how_to_get_one(name):
    done = run(SWBD / name, status=2, ESPNET_ROOT="")
    assert "export ESPNET_ROOT=" in done
