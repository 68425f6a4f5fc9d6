"""AN4's hybrid recipe from nothing to the table, on a made-up corpus with tiny networks."""

import json

import pytest
import yaml
from egs.look_alike import write_corpus
from egs.recipes import EGS, UNADORNED, run_recipe

pytest.importorskip("kaldi_hmm_gmm")

RECIPE = EGS / "an4" / "hybrid1"
TINY = {**UNADORNED, "batch_bins": 40000}


def write_tiny(source, target, **changes):
    """Write a configuration of the recipe with a network of two layers of 32 cells."""
    conf = yaml.safe_load(source.read_text())
    conf["encoder_conf"].update(num_layers=2, hidden_size=32, output_size=32, dropout=0.0)
    conf["model_conf"].update(bottleneck_size=32)
    target.write_text(yaml.safe_dump({**conf, **TINY, **changes}))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, warm_python):
    """Folder and command of a run that has come to its end."""
    folder = tmp_path_factory.mktemp("an4")
    write_corpus(folder / "corpus")
    for name, epochs, rate in (("fp32", 4, 0.01), ("realigned", 2, 0.005), ("qat", 1, 0.002)):
        write_tiny(
            RECIPE / "conf" / f"train_hybrid_{name}.yaml",
            folder / f"{name}.yaml",
            max_epoch=epochs,
            optim_conf={"lr": rate},
        )
    command = [
        *(RECIPE / "run.sh", "--python", warm_python, "--nj", 1),
        *("--local_data_opts", f"--an4 {folder}/corpus --downloads {folder}/downloads"),
        *("--datadir", folder / "data", "--dumpdir", folder / "dump", "--expdir", folder / "exp"),
        *("--speed_perturb_factors", "", "--mono_args", "--gaussians 60 --iterations 12"),
        *("--triphone_args", "--iterations 8", "--leaves", 40, "--gaussians", 60),
        *("--hybrid_config", folder / "fp32.yaml", "--realign_config", folder / "realigned.yaml"),
        *("--qat_config", folder / "qat.yaml", "--calibration_batches", 2),
        *("--schemes", "fp32 tailored", "--inferences", "int4"),
        *("--test_sets", "test", "--nbest", 5, "--stop_stage", 14),
    ]
    run_recipe(command)
    return folder, command


def results(folder):
    return json.loads(next(folder.glob("results*.json")).read_text())


@pytest.mark.slow
def test_every_system_recognizes_most_words(finished):
    folder, _ = finished
    rows = results(folder / "exp")
    assert [(r["system"], r["part"], r["inference"]) for r in rows] == [
        ("gmm", "test", "float"),
        ("realigned_fp32", "test", "float"),
        ("realigned_tailored", "test", "int4"),
    ]
    words = (folder / "data/test/text").read_text().split()
    for row in rows:
        assert row["words"] == len(words) - row["utterances"]
        # A recognizer that has learned nothing gets six words of seven wrong.
        assert row["wer"] < 25, row
        assert row["correct"] + row["substitutions"] + row["deletions"] == row["words"]
        assert row["rtf_search"] > 0
    gmm, fp32, tailored = rows
    assert gmm["rtf_acoustic"] is None and fp32["rtf_acoustic"] > 0 and tailored["rtf_acoustic"] > 0
    assert fp32["seed"] == tailored["seed"] == 1
    assert tailored["bits"] == "W4A4" and tailored["size_bytes"] < fp32["size_bytes"] / 3
    for system in ("fp32", "tailored"):
        packed = folder / "exp" / f"hybrid_realigned_{system}" / "model.zip"
        assert packed.stat().st_size > 10000


@pytest.mark.slow
def test_the_table_of_a_second_run_is_the_same(finished):
    folder, command = finished
    before = results(folder / "exp")
    shown = run_recipe([*command, "--stop_stage", 13]).stdout
    assert "trained already" in shown and "training (log" not in shown
    assert results(folder / "exp") == before


@pytest.mark.slow
def test_alignments_and_graph_of_a_kaldi_will_do(finished):
    """This recipe's own files, which are Kaldi's, stand in for those of a user."""
    folder, command = finished
    exp, new = folder / "exp", folder / "kaldi_exp"
    run_recipe(
        [
            *(*command, "--stage", 9, "--stop_stage", 13, "--expdir", new, "--realign", "false"),
            *("--kaldi_ali", exp / "tri1_ali/train", "--kaldi_ali_dev", exp / "tri1_ali/dev"),
            *("--import_args", "--snip_edges false", "--graph", exp / "tri1/graph"),
            *("--schemes", "fp32"),
        ]
    )
    for part in ("train", "dev"):
        ours, theirs = (
            (folder / name / part / "pdf_ids").read_text()
            for name in ("exp/tri1_ali", "kaldi_exp/kaldi_ali")
        )
        assert ours == theirs
    (row,) = results(new)
    assert row["system"] == "fp32" and row["wer"] < 40
