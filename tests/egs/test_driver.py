"""The recipes' driver with ESPnet's commands replaced: order, options, resuming, failing, Ctrl-C."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from egs.made_up_recipe import Recipe
from egs.recipes import REPOSITORY

# For tests that are not about these: one speed, no CTC, one system, one part.
LITTLE = (
    *("--speed_perturb_factors", "", "--ctc_config", "", "--schemes", "fp32", "--nj", "1"),
    *("--test_sets", "dev"),
)


@pytest.fixture
def recipe(tmp_path):
    return Recipe(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A recipe that has run as a whole."""
    recipe = Recipe(tmp_path_factory.mktemp("recipe"))
    done = recipe.run("--stop_stage", "14")
    assert done.returncode == 0, done.stdout + done.stderr
    recipe.first_calls = recipe.calls
    return recipe


def test_all_stages_in_order_with_their_options(finished):
    recipe, calls = finished, finished.first_calls
    assert [c for c, _ in calls if c != "asr_inference"] == [
        "tokenize_text",
        "asr_train",  # statistics
        "asr_train",  # CTC
        "asr_train",  # FP32
        *("calibrate",) * 2,
        *("asr_train",) * 2,
        *("convert",) * 2,
        "results",
        *("pack",) * 3,
    ]
    stats, ctc, fp32, naive, tailored = (o for c, o in calls if c == "asr_train")
    assert stats["collect_stats"] == ["true"]
    assert "init_param" not in ctc
    assert fp32["init_param"] == ["exp/asr_ctc/valid.loss.ave.pth"]
    for name, system in (("naive", naive), ("tailored", tailored)):
        assert system["model_conf"] == [f"scheme=exp/asr_{name}/scheme.yaml"]
        written = (recipe.folder / f"exp/asr_{name}/scheme.yaml").read_text()
        assert written == (REPOSITORY / f"conf/scheme/{name}.yaml").read_text()
        assert system["init_param"] == [f"exp/asr_{name}/calibrated.pth"]
        assert system["resume"] == ["true"]
    calibrations = [o for c, o in calls if c == "calibrate"]
    assert [o["init_param"] for o in calibrations] == [["exp/asr_fp32/valid.loss.ave.pth"]] * 2
    # Every training reads the same data, and none of it is the test part.
    for options in (ctc, fp32, naive, tailored):
        assert options["train_data_path_and_name_and_type"] == [
            "dump/raw/train_sp/wav.scp,speech,sound",
            "dump/raw/train_sp/text,text,text",
        ]
    # One search for all systems, on both parts, in two jobs each.
    searches = [o for c, o in calls if c == "asr_inference"]
    assert len(searches) == (1 + 2 * 2) * 2 * 2
    for name, inference in (
        ("fp32/decode_asr", "emulated"),
        ("naive/decode_asr", "emulated"),
        ("naive/decode_asr_int4", "int4"),
    ):
        folder = recipe.folder / f"exp/asr_{name}/test/logdir/output.1/1best_recog"
        assert (folder / "inference").read_text() == inference
    assert not (recipe.folder / "exp/asr_fp32/decode_asr_int4").exists()
    conversions = [o for c, o in calls if c == "convert"]
    assert [o["output"] for o in conversions] == [
        ["exp/asr_naive/model.int4"],
        ["exp/asr_tailored/model.int4"],
    ]
    assert {o["config"][0] for o in searches} == {"conf/decode_asr.yaml"}
    text = (recipe.folder / "exp/asr_naive/decode_asr/test/text").read_text()
    assert text == "".join(f"test-{i} hello\n" for i in range(4))
    assert len((recipe.folder / "dump/raw/train_sp/text").read_text().splitlines()) == 12


def test_a_second_run_does_nothing_again(finished):
    done = finished.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert [c for c, _ in finished.calls] == ["tokenize_text", "results"]
    assert "trained already" in done.stdout and "decoded already" in done.stdout


def test_new_data_give_new_statistics(recipe):
    assert recipe.run(*LITTLE, "--stop_stage", "5").returncode == 0
    assert [c for c, _ in recipe.calls] == ["tokenize_text"]
    stage = ("--stage", "10", "--stop_stage", "10")
    assert recipe.run(*LITTLE, *stage).returncode == 0
    assert recipe.outputs("asr_train") == ["asr_stats_raw_char"]
    assert recipe.run(*LITTLE, *stage).returncode == 0
    assert recipe.outputs("asr_train") == []
    for name in ("wav.scp", "text", "utt2spk"):
        table = recipe.folder / "recordings" / "train" / name
        table.write_text("".join(table.read_text().splitlines(keepends=True)[:3]))
    assert recipe.run(*LITTLE, "--stop_stage", "10").returncode == 0
    assert recipe.outputs("asr_train") == ["asr_stats_raw_char"]


def pretrain(recipe, tokens):
    folder = recipe.folder / "pretrained"
    folder.mkdir()
    (folder / "fp32.pth").write_text("weights")
    (folder / "tokens.txt").write_text("\n".join(["<blank>", "<unk>", *tokens, "<sos/eos>"]) + "\n")


def test_the_committed_model_keeps_its_order_of_tokens(recipe):
    pretrain(recipe, ["c", "b", "a", "z", "<space>"])
    systems = ("--schemes", "fp32 naive", "--stop_stage", "11")
    done = recipe.run(*LITTLE, *systems, "--from_scratch", "false")
    assert done.returncode == 0, done.stdout + done.stderr
    tokens = (recipe.folder / "data/token_list/char/tokens.txt").read_text().split()
    assert tokens == ["<blank>", "<unk>", "c", "b", "a", "z", "<space>", "<sos/eos>"]
    assert (recipe.folder / "exp/asr_fp32/valid.loss.ave.pth").read_text() == "weights"
    trained = [o for c, o in recipe.calls if c == "asr_train" and "collect_stats" not in o]
    assert trained[0]["dry_run"] == ["true"]
    assert [Path(o["output_dir"][0]).name for o in trained[1:]] == ["asr_naive"]


def test_characters_that_the_committed_model_lacks_are_an_error(recipe):
    pretrain(recipe, ["a", "c", "<space>"])
    done = recipe.run(*LITTLE, "--from_scratch", "false")
    assert done.returncode == 1
    assert "knows no token for: b" in done.stderr


def test_systems_are_trained_side_by_side_and_schemes_may_be_files(recipe):
    mine = recipe.folder / "mine.yaml"
    mine.write_text("lstm: {}\n")
    systems = ("--schemes", f"fp32 naive {mine}", "--stop_stage", "11", "--train_jobs", "2")
    done = recipe.run(*LITTLE, *systems)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(recipe.outputs("asr_train")[2:]) == ["asr_mine", "asr_naive"]
    assert (recipe.folder / "exp/asr_mine/scheme.yaml").read_text() == "lstm: {}\n"


def test_trainings_on_gpus_go_one_by_one_through_espnets_launcher(recipe):
    options = [*LITTLE, "--schemes", "fp32 naive tailored", "--stop_stage", "11", "--ngpu", "2"]
    done = recipe.run(*options)
    assert done.returncode == 0, done.stdout + done.stderr
    trainings = [o for c, o in recipe.calls if c == "asr_train" and "collect_stats" not in o]
    assert [Path(o["output_dir"][0]).name for o in trainings] == [
        "asr_fp32",
        "asr_naive",
        "asr_tailored",
    ]
    for training in trainings:
        assert training["ngpu"][-1] == "2"
        assert training["multiprocessing_distributed"] == ["True"]


@pytest.mark.parametrize("ngpu", ["1", "2"])
def test_jobs_side_by_side_are_for_cpus(recipe, ngpu):
    done = recipe.run(*LITTLE, "--ngpu", ngpu, "--train_jobs", "2")
    assert done.returncode == 2 and not recipe.calls
    assert f"--train_jobs 2 with --ngpu {ngpu}" in done.stderr
    assert "valid: --train_jobs 1, or --ngpu 0" in done.stderr


@pytest.mark.parametrize("name", ["ngpu", "nj", "train_jobs", "stage", "num_nodes"])
def test_what_is_no_number_is_refused(recipe, name):
    done = recipe.run(f"--{name}", "two")
    assert done.returncode == 2 and not recipe.calls
    assert f"--{name} two; valid: a whole number" in done.stderr


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (f'exec "{sys.executable}" -IS "$@"', "which lacks: espnet_quant4 espnet2"),
        ("exit 1", "which lacks: no Python that runs"),
    ],
)
def test_a_python_without_the_plugin_is_named_with_a_way_out(recipe, script, said):
    recipe.script(recipe.python, script)
    done = recipe.run(*LITTLE)
    assert done.returncode == 2 and "No module named" not in done.stderr
    assert f"--python {recipe.python} is {recipe.python}, {said}" in done.stderr
    assert "--python /path/to/environment/bin/python" in done.stderr


def test_an_unknown_scheme_is_refused_with_the_choices(finished):
    done = finished.run("--stage", "11", "--stop_stage", "11", "--schemes", "fp32 tailord")
    assert done.returncode == 2
    assert "no scheme tailord" in done.stderr and "tailored.yaml" in done.stderr


def test_a_new_fp32_model_does_not_go_with_old_quantized_ones(finished):
    model = finished.folder / "exp/asr_fp32/valid.loss.ave.pth"
    before, future = model.stat(), time.time() + 10
    os.utime(model, (future, future))
    done = finished.run("--stage", "11")
    os.utime(model, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert done.returncode == 1
    assert "exp/asr_naive was started from an earlier exp/asr_fp32" in done.stderr


def test_a_failure_stops_the_recipe_and_the_next_run_goes_on_there(recipe):
    systems = ("--schemes", "fp32 naive", "--stop_stage", "11")
    done = recipe.run(*LITTLE, *systems, FAKE_FAILURE="asr_naive")
    assert done.returncode == 1
    assert "CUDA is on holiday" in done.stdout
    assert "exp/asr_naive/train.log" in done.stdout
    assert recipe.run(*LITTLE, *systems, "--stage", "11").returncode == 0
    assert recipe.outputs("asr_train") == ["asr_naive"]


def test_ctrl_c_ends_every_job(recipe):
    pids = recipe.folder / "pids"
    (recipe.folder / "calls").write_text("")
    driver = subprocess.Popen(
        recipe.command(*LITTLE, "--nj", "2"),
        cwd=recipe.folder,
        env={**recipe.environment, "FAKE_SLEEP": str(pids)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    end = time.monotonic() + 60
    while not pids.exists() or len(pids.read_text().split()) < 2:
        assert time.monotonic() < end and driver.poll() is None
        time.sleep(0.1)
    os.killpg(driver.pid, signal.SIGINT)  # what a terminal does
    assert driver.wait(timeout=60) != 0
    for pid in pids.read_text().split():
        stat = Path(f"/proc/{pid}/stat")
        assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_features_by_speaker_take_the_place_of_waveforms(recipe):
    done = recipe.run(*LITTLE, "--feats_type", "fbank", "--num_mels", "20")
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = {tuple(o["num_mels"]) for c, o in recipe.calls if c == "hybrid_features"}
    assert made == ("20",)
    for stats in (True, False):
        (options,) = (
            o for c, o in recipe.calls if c == "asr_train" and ("collect_stats" in o) == stats
        )
        assert options["input_size"] == ["20"] and options["normalize"] == ["none"]
        assert options["valid_data_path_and_name_and_type"] == [
            "dump/fbank/dev/feats.scp,speech,kaldi_ark",
            "dump/raw/dev/text,text,text",
        ]
    (search,) = (o for c, o in recipe.calls if c == "asr_inference")
    assert search["data_path_and_name_and_type"] == ["dump/fbank/dev/feats.scp,speech,kaldi_ark"]
    # Lengths of features are in frames.
    (table,) = (o for c, o in recipe.calls if c == "results")
    assert table["fs"] == ["100"]


def test_what_asr_sh_cannot_do_is_refused_with_a_way_out(recipe, tmp_path):
    for option, value in (
        ("--feats_type", "fbank"),
        ("--qat", "false"),
        ("--qat", "scratch"),
        ("--train_jobs", "2"),
    ):
        done = recipe.run(option, value, ESPNET_ROOT=str(tmp_path))
        assert done.returncode == 2
        assert f"{option} {value} is not for ESPnet's asr.sh" in done.stderr
        assert "unset ESPNET_ROOT" in done.stderr


def test_the_first_training_may_start_from_another_models_encoder(recipe):
    for ctc in (True, False):
        options = ["--schemes", "fp32", "--speed_perturb_factors", "", "--test_sets", "dev"]
        options += [] if ctc else ["--ctc_config", ""]
        done = recipe.run(
            *options, "--init_encoder", "hybrid.pth", "--stop_stage", "11", "--expdir", f"exp_{ctc}"
        )
        assert done.returncode == 0, done.stdout + done.stderr
        first = next(o for c, o in recipe.calls if c == "asr_train" and "collect_stats" not in o)
        assert Path(first["output_dir"][0]).name == ("asr_ctc" if ctc else "asr_fp32")
        assert first["init_param"] == ["hybrid.pth:encoder:encoder"]


def test_quantization_without_training_is_the_calibrated_model(recipe):
    options = [*LITTLE, "--schemes", "fp32 tailored", "--inferences", "emulated", "--qat", "false"]
    done = recipe.run(*options)
    assert done.returncode == 0, done.stdout + done.stderr
    (only,) = (o for c, o in recipe.calls if c == "asr_train" and "scheme" in str(o))
    assert only["dry_run"] == ["true"]
    folder = recipe.folder / "exp/asr_tailored"
    assert (folder / "valid.loss.ave.pth").read_bytes() == (folder / "calibrated.pth").read_bytes()
    assert (folder / "decode_asr/dev/text").is_file()


def test_quantization_from_scratch_starts_where_fp32_did(recipe):
    options = [*LITTLE, "--ctc_config", "conf/train_asr_ctc.yaml", "--schemes", "fp32 tailored"]
    options += ["--inferences", "emulated", "--qat", "scratch"]
    done = recipe.run(*options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not [c for c, _ in recipe.calls if c == "calibrate"]
    trainings = [o for c, o in recipe.calls if c == "asr_train" and "collect_stats" not in o]
    ctc, fp32, tailored = trainings
    assert Path(ctc["output_dir"][0]).name == "asr_ctc"
    changed = {"output_dir", "model_conf"}
    assert {k: v for k, v in tailored.items() if k not in changed} == {
        k: v for k, v in fp32.items() if k not in changed
    }
    assert tailored["init_param"] == ["exp/asr_ctc/valid.loss.ave.pth"]
    assert tailored["model_conf"] == ["scheme=exp/asr_tailored/scheme.yaml"]
    assert (recipe.folder / "exp/asr_tailored/decode_asr/dev/text").is_file()
    # Also where FP32 was there before.
    shutil.rmtree(recipe.folder / "exp/asr_tailored")
    again = recipe.run(*options)
    assert again.returncode == 0, again.stdout + again.stderr
    assert [o for c, o in recipe.calls if c == "asr_train"] == [tailored]
