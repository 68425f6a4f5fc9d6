"""The hybrid recipes' driver with the commands of its stages replaced: order, options, resuming."""

from pathlib import Path

import pytest
from egs.made_up_recipe import Recipe

# For tests that are not about these.
LITTLE = ("--schemes", "fp32", "--nj", "1", "--test_sets", "test", "--decode_gmm", "false")


@pytest.fixture
def recipe(tmp_path):
    return Recipe(tmp_path, "hybrid.sh")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A recipe that has run as a whole."""
    recipe = Recipe(tmp_path_factory.mktemp("recipe"), "hybrid.sh")
    done = recipe.run("--stop_stage", "14")
    assert done.returncode == 0, done.stdout + done.stderr
    recipe.first_calls = recipe.calls
    return recipe


def kinds(recipe, but=()):
    """Commands of the last run in their order, with the first of their steps."""
    return [" ".join([c, *o.get("step", [])]) for c, o in recipe.calls if c not in but]


def of(calls, command):
    return [options for name, options in calls if name == command]


def names(calls, command="hybrid_train"):
    return [Path(o["output_dir"][0]).name for o in of(calls, command)]


def test_all_stages_in_order(finished):
    shown = [" ".join([c, *o.get("step", [])]) for c, o in finished.first_calls]
    assert shown[:14] == [
        "hybrid_lang",
        "hybrid_lm",
        "hybrid_gmm mono",
        "hybrid_gmm triphone",
        "hybrid_graph",
        *("hybrid_gmm align",) * 2,
        "hybrid_train",  # statistics
        "hybrid_train",  # FP32
        *("calibrate",) * 2,
        *("hybrid_train",) * 2,
        "hybrid_prior",
    ]
    assert names(finished.first_calls) == [
        *("hybrid_stats", "hybrid_fp32", "hybrid_naive", "hybrid_tailored"),
    ]
    assert shown[-4:] == ["hybrid_results", *("hybrid_pack",) * 3]


def test_trainings_read_the_alignment_and_no_test_part(finished):
    stats, fp32, naive, tailored = of(finished.first_calls, "hybrid_train")
    assert stats["collect_stats"] == ["true"] and stats["normalize"] == ["none"]
    for options in (fp32, naive, tailored):
        assert options["num_pdfs"] == ["exp/tri1_ali/train/num_pdfs"]
        for kind, part in (("train", "train"), ("valid", "dev")):
            assert options[f"{kind}_data_path_and_name_and_type"] == [
                f"dump/raw/{part}/wav.scp,speech,sound",
                f"exp/tri1_ali/{part}/pdf_ids,pdf_ids,text_int",
            ]
            assert options[f"{kind}_shape_file"] == [f"exp/tri1_ali/{part}/speech_shape"]
    assert "init_param" not in fp32
    for scheme, options in (("naive", naive), ("tailored", tailored)):
        assert options["init_param"] == [f"exp/hybrid_{scheme}/calibrated.pth"]
        assert options["model_conf"] == [f"scheme=exp/hybrid_{scheme}/scheme.yaml"]
    for options in of(finished.first_calls, "calibrate"):
        assert options["task"] == ["hybrid"]
        assert options["init_param"] == ["exp/hybrid_fp32/valid.loss.ave.pth"]


def test_scales_are_chosen_on_dev_and_applied_to_test(finished):
    searches = of(finished.first_calls, "hybrid_rescore")
    # GMM, FP32, and two schemes on codes and in float.
    assert len(searches) == 2 * (1 + 1 + 2 * 2)
    for dev, test in zip(searches[::2], searches[1::2], strict=True):
        assert dev["tune_on"] == ["dump/raw/dev/text"] and len(dev["lm_scale"]) > 1
        assert test["tuned"] == [f"{dev['output'][0]}/tuned.json"]
        assert not {"tune_on", "lm_scale"} & set(test)
    for options in of(finished.first_calls, "hybrid_decode"):
        assert options["tree"] == ["exp/tri1_ali/train/tree"]


def test_a_quantized_system_is_scored_from_its_int4_file(finished):
    inferences = of(finished.first_calls, "hybrid_inference")
    for options in inferences:
        folder = options["output_dir"][0]
        on_codes = "decode_hybrid_int4" in folder
        assert ("int4_file" in options) == on_codes
        assert ("hybrid_model_file" in options) != on_codes
        written = (finished.folder / folder / "inference").read_text()
        assert written == ("int4" if on_codes else "emulated")
    # Two parts in two jobs each.
    assert len(inferences) == 2 * 2 * (1 + 2 * 2)
    text = finished.folder / "exp/hybrid_naive/decode_hybrid_int4/test/text"
    assert sorted(text.read_text().splitlines()) == [f"test-{i} hello" for i in range(4)]
    assert [o["log_prior"] for o in of(finished.first_calls, "convert")] == [
        ["exp/hybrid_naive/log_prior"],
        ["exp/hybrid_tailored/log_prior"],
    ]


def test_a_second_run_only_searches_and_scores(finished):
    done = finished.run()
    assert done.returncode == 0, done.stdout + done.stderr
    # hybrid_decode keeps by itself what it has found.
    assert set(kinds(finished)) == {"hybrid_decode", "hybrid_rescore", "hybrid_results"}
    assert "trained already" in done.stdout and "scored already" in done.stdout


def test_another_order_of_the_language_model_leaves_the_gmm_alone(finished):
    done = finished.run("--lm_order", "3", "--stage", "5", "--stop_stage", "9")
    assert done.returncode == 0, done.stdout + done.stderr
    assert kinds(finished) == ["hybrid_lm", "hybrid_graph"]


def test_new_transcripts_make_all_of_it_anew_and_a_trained_network_is_refused(recipe):
    assert recipe.run(*LITTLE, "--stop_stage", "11").returncode == 0
    before = kinds(recipe)
    table = recipe.folder / "recordings" / "train" / "text"
    table.write_text(table.read_text().replace("ab c", "c ab", 1))
    done = recipe.run(*LITTLE, "--stop_stage", "11")
    assert done.returncode == 1
    assert "exp/hybrid_fp32 was trained on an earlier exp/tri1_ali/train/pdf_ids" in done.stderr
    assert "Remove exp/hybrid_fp32" in done.stderr
    # All but the network and its prior.
    assert kinds(recipe) == before[:-2]


def test_what_cannot_be_aligned_is_not_trained_on(recipe):
    done = recipe.run(*LITTLE, "--realign", "true")
    assert done.returncode == 0, done.stdout + done.stderr
    assert names(recipe.calls) == ["hybrid_stats", "hybrid_fp32", "hybrid_realigned_fp32"]
    first, second = of(recipe.calls, "hybrid_train")[1:]
    assert second["init_param"] == ["exp/hybrid_fp32/valid.loss.ave.pth"]
    listed = [
        (recipe.folder / o["train_shape_file"][0]).read_text().split()[::2] for o in (first, second)
    ]
    assert listed == [[f"train-{i}" for i in range(4)], [f"train-{i}" for i in range(1, 4)]]
    priors = [o["pdf_counts"] for o in of(recipe.calls, "hybrid_prior")]
    assert priors == [
        ["exp/tri1_ali/train/pdf_counts"],
        ["exp/hybrid_realigned_ali/train/pdf_counts"],
    ]


def test_sequence_training_starts_from_frames_and_stays_with_its_criterion(recipe):
    (recipe.folder / "conf" / "decode_hybrid_lfmmi.yaml").write_text("")
    done = recipe.run(*LITTLE, "--criterion", "lfmmi", "--schemes", "fp32 naive")
    assert done.returncode == 0, done.stdout + done.stderr
    _, frames, sequences, quantized = of(recipe.calls, "hybrid_train")
    assert "model_conf" not in frames
    assert sequences["init_param"] == ["exp/hybrid_fp32/valid.loss.ave.pth"]
    assert sequences["config"] == ["conf/train_hybrid_lfmmi.yaml"]
    lfmmi = ["criterion=lfmmi", "lfmmi_conf.denominator=exp/hybrid_lfmmi_den.fst"]
    assert sequences["model_conf"] == lfmmi
    assert quantized["model_conf"][:2] == lfmmi
    assert {o["acoustic_scale"][0] for o in of(recipe.calls, "hybrid_decode")} == {"1"}
    (results,) = of(recipe.calls, "hybrid_results")
    assert results["systems"] == ["exp/hybrid_lfmmi_fp32", "exp/hybrid_lfmmi_naive"]
    assert results["output"] == ["exp/results_lfmmi.json"]
    # Frame cross-entropy has its own systems beside these.
    assert recipe.run(*LITTLE).returncode == 0
    assert names(recipe.calls) == []
    assert of(recipe.calls, "hybrid_results")[0]["systems"] == ["exp/hybrid_fp32"]


@pytest.mark.parametrize("realign", [False, True])
def test_quantization_from_scratch_goes_the_way_of_fp32(recipe, realign):
    options = ("--schemes", "fp32 tailored", "--qat", "scratch", "--realign", str(realign).lower())
    done = recipe.run(*LITTLE, *options, "--stop_stage", "12")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not of(recipe.calls, "calibrate")
    folder = "exp/hybrid_realigned_tailored" if realign else "exp/hybrid_tailored"
    trainings = [o for o in of(recipe.calls, "hybrid_train") if o.get("model_conf")]
    assert [o["output_dir"] for o in trainings] == (
        [[f"{folder}/first"], [folder]] if realign else [[folder]]
    )
    assert all(o["model_conf"] == [f"scheme={folder}/scheme.yaml"] for o in trainings)
    assert "init_param" not in trainings[0]
    if realign:
        assert trainings[1]["init_param"] == [f"{folder}/first/valid.loss.ave.pth"]
        assert trainings[0]["num_pdfs"] == ["exp/hybrid_realigned_ali/train/num_pdfs"]
    done = recipe.run("--qat", "scratch", "--criterion", "lfmmi")
    assert done.returncode == 2 and "--criterion ce" in done.stderr


def test_files_of_ones_own_kaldi_stand_in_for_lexicon_and_gmm(recipe):
    for name in ("kaldi/final.mdl", "kaldi/graph/HCLG.fst"):
        (recipe.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (recipe.folder / name).write_text("")
    options = ("--kaldi_ali", "kaldi", "--graph", "kaldi/graph")
    done = recipe.run(*LITTLE, *options, "--stop_stage", "12")
    assert done.returncode == 0, done.stdout + done.stderr
    assert kinds(recipe)[:4] == [
        *("hybrid_import alignments",) * 2,
        "hybrid_import graph",
        "hybrid_train",
    ]
    assert not [k for k in kinds(recipe) if k.startswith(("hybrid_gmm", "hybrid_l"))]
    assert {o["graph"][0] for o in of(recipe.calls, "hybrid_decode")} == {"exp/kaldi_graph"}
    done = recipe.run(*LITTLE, *options, "--stop_stage", "11")
    assert done.returncode == 0 and kinds(recipe) == []


def test_a_new_model_is_scored_and_its_prior_kept(finished):
    model = finished.folder / "exp/hybrid_tailored/valid.loss.ave.pth"
    model.touch()
    done = finished.run("--stage", "12", "--stop_stage", "12", "--schemes", "fp32 tailored")
    assert done.returncode == 0, done.stdout + done.stderr
    scored = {o["output_dir"][0].split("/")[1] for o in of(finished.calls, "hybrid_inference")}
    assert scored == {"hybrid_tailored"}
    assert len(of(finished.calls, "convert")) == 1
    assert of(finished.calls, "hybrid_prior") == []


def test_the_gmm_alone_needs_no_network(recipe):
    done = recipe.run("--schemes", "", "--nj", "1", "--test_sets", "test")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not {"hybrid_train", "hybrid_inference"} & {c for c, _ in recipe.calls}
    assert kinds(recipe)[-1] == "hybrid_results"


def test_a_failure_stops_the_recipe_and_the_next_run_goes_on_there(recipe):
    done = recipe.run(*LITTLE, "--stop_stage", "11", FAKE_FAILURE="hybrid_fp32")
    assert done.returncode == 1
    assert "CUDA is on holiday" in done.stdout and "exp/hybrid_fp32/train.log" in done.stdout
    assert recipe.run(*LITTLE, "--stop_stage", "11").returncode == 0
    assert kinds(recipe) == ["hybrid_train", "hybrid_prior"]


def test_trainings_on_gpus_go_through_espnets_launcher(recipe):
    done = recipe.run(*LITTLE, "--ngpu", "2", "--stop_stage", "11")
    assert done.returncode == 0, done.stdout + done.stderr
    stats, fp32 = of(recipe.calls, "hybrid_train")
    assert stats["ngpu"] == ["0"] and "multiprocessing_distributed" not in stats
    assert fp32["ngpu"][-1] == "2" and fp32["multiprocessing_distributed"] == ["True"]
    assert (recipe.folder / "exp/hybrid_fp32/train.log").exists()
