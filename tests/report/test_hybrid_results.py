"""The table of a hybrid recipe: GMM and networks, two kinds of inference, seconds of two steps."""

import json

import pytest

from espnet_quant4.bin import hybrid_results as command
from espnet_quant4.bin.main import main
from espnet_quant4.report import hybrid_results

REFERENCE = "amy-1 yes no\namy-2 no\n"
GMM = """\
<TransitionModel> </TransitionModel> <DIMENSION> 39
<NUMPDFS> 2
<DiagGMM>
<WEIGHTS> [ 0.5 0.25 0.25 ]
<MEANS_INVVARS> [ 0 ]
</DiagGMM>
<DiagGMM>
<WEIGHTS> [ 1 ]
</DiagGMM>
"""


def decode(folder, text, scored=(), searched=(), jobs=1):
    """Write what decoding a part leaves."""
    for step, seconds in (("output", scored), ("search", searched)):
        for job, value in enumerate(seconds, 1):
            path = folder / "logdir" / f"{step}.{job}" / "seconds"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{value}\n")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text").write_text(text)
    (folder / "num_jobs").write_text(f"{jobs}\n")


@pytest.fixture
def experiments(tmp_path, monkeypatch):
    bits = {"fp32": ("W32A32", 32.0), "naive": ("W4A4", 4.0)}

    def describe(system, model, task):
        name, weight_bits = bits[system.name.rpartition("_")[2]]
        return {"seed": 7, "bits": name, "weight_bits": weight_bits, "size_bytes": 8000000}

    monkeypatch.setattr(hybrid_results, "describe_model", describe)
    (tmp_path / "dump" / "test").mkdir(parents=True)
    (tmp_path / "dump" / "test" / "text").write_text(REFERENCE)
    tuned = {"lm_scale": 12.0, "word_insertion_penalty": 0.5, "lm_weight": 0.0}
    for name in ("tri1/d", "hybrid_fp32/d", "hybrid_naive/d", "hybrid_naive/d_int4"):
        (tmp_path / name / "dev").mkdir(parents=True)
        (tmp_path / name / "dev" / "tuned.json").write_text(json.dumps(tuned))
    (tmp_path / "tri1" / "final.mdl").write_text(GMM)
    decode(tmp_path / "tri1/d/test", "amy-1 yes\namy-2 yes\n", searched=["1 10"])
    # A second job's files are those of an earlier run with more jobs.
    decode(tmp_path / "hybrid_fp32/d/test", REFERENCE, ["2 10", "90 1"], ["1 10", "90 1"])
    both = (["1 10", "3 10"], ["1 10", "1 10"])
    decode(tmp_path / "hybrid_naive/d/test", "amy-1 yes\namy-2 no\n", *both, jobs=2)
    decode(tmp_path / "hybrid_naive/d_int4/test", "amy-1 yes no no\namy-2\n", *both, jobs=2)
    (tmp_path / "hybrid_naive" / "model.int4").write_bytes(bytes(1000))
    return tmp_path


def collect(folder, **options):
    systems = [folder / "hybrid_fp32", folder / "hybrid_naive"]
    return hybrid_results.collect(systems, ["test"], folder / "dump", "d", "best.pth", **options)


def test_every_system_and_inference_has_a_row(experiments):
    rows = collect(experiments, gmm=experiments / "tri1")
    shown = [(r["system"], r["seed"], r["inference"], r["wer"], r["words"]) for r in rows]
    assert shown == [
        ("gmm", None, "float", 66.67, 3),
        ("fp32", 7, "float", 0.0, 3),
        ("naive", 7, "emulated", 33.33, 3),
        ("naive", 7, "int4", 66.67, 3),
    ]
    assert [r["deletions"] for r in rows] == [1, 0, 1, 1]
    assert [r["insertions"] for r in rows] == [0, 0, 0, 1]
    assert {r["lm_scale"] for r in rows} == {12.0}
    assert [r["scheme"] for r in rows] == [None, "fp32", "naive", "naive"]
    assert [r["size_bytes"] for r in rows[2:]] == [8000000, 1000]
    assert (experiments / "hybrid_naive/d_int4/test/score_wer/result.txt").is_file()


def test_a_scheme_keeps_its_name_however_its_model_was_trained(experiments):
    (experiments / "hybrid_fp32").rename(experiments / "hybrid_realigned_lfmmi_fp32")
    systems = [experiments / "hybrid_realigned_lfmmi_fp32"]
    (row,) = hybrid_results.collect(systems, ["test"], experiments / "dump", "d", "best.pth")
    assert (row["system"], row["scheme"]) == ("realigned_lfmmi_fp32", "fp32")


def test_without_sclite_the_counts_are_the_same(experiments, monkeypatch):
    before = collect(experiments)
    monkeypatch.setattr(hybrid_results, "find_sclite", lambda: None)
    after = collect(experiments)
    assert {row.pop("scorer") for row in after} == {"built-in"}
    assert [{k: v for k, v in row.items() if k != "scorer"} for row in before] == after


def test_seconds_are_those_of_the_jobs_of_this_run(experiments):
    gmm, fp32, naive, _ = collect(experiments, gmm=experiments / "tri1")
    assert (gmm["rtf_acoustic"], gmm["rtf_search"]) == (None, 0.1)
    assert (fp32["rtf_acoustic"], fp32["rtf_search"]) == (0.2, 0.1)
    assert (naive["rtf_acoustic"], naive["rtf_search"]) == (0.2, 0.1)
    assert naive["audio_seconds"] == 20


def test_a_gmm_is_measured_by_its_gaussians(experiments):
    description = hybrid_results.describe_gmm(experiments / "tri1")
    # Four Gaussians of 39 means, 39 variances and a weight, four bytes each.
    assert description["parameters"] == 4 * (2 * 39 + 1)
    assert description["size_bytes"] == 4 * description["parameters"]
    assert description["pdfs"] == 2


def test_the_command_writes_the_table(experiments, capsys):
    arguments = [
        *("--systems", experiments / "hybrid_fp32", experiments / "hybrid_naive"),
        *("--gmm", experiments / "tri1", "--dumpdir", experiments / "dump"),
        *("--inference", "d", "--output", experiments / "results.json"),
    ]
    assert command.main(list(map(str, arguments))) == 0
    assert len(json.loads((experiments / "results.json").read_text())) == 4
    table = capsys.readouterr().out.splitlines()
    assert table[0].startswith("| System |") and "| gmm " in table[2] and "| - " in table[2]
    assert len({len(line) for line in table[:6]}) == 1


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("test/num_jobs", "many\n", "'many'; valid are 1 number"),
        ("test/num_jobs", "", "''; valid are 1 number"),
        ("test/logdir/output.1/seconds", "2\n", "'2'; valid are 2 number"),
        ("test/logdir/search.1/seconds", "nan 10\n", "'nan 10'; valid are 2 number"),
        ("dev/tuned.json", "{", "tuned.json:1: not valid JSON"),
        ("dev/tuned.json", "[]", "[]; valid is what hybrid-rescore writes"),
        ("dev/tuned.json", "{}", "{}; valid is what hybrid-rescore writes"),
    ],
)
def test_broken_files_of_a_decoding_are_named(experiments, capsys, file, content, message):
    (experiments / "hybrid_fp32/d" / file).write_text(content)
    arguments = [
        *("--systems", experiments / "hybrid_fp32", "--dumpdir", experiments / "dump"),
        *("--inference", "d", "--output", experiments / "results.json"),
    ]
    assert main(["hybrid-results", *map(str, arguments)]) == 1
    said = capsys.readouterr().err
    assert f"{experiments}/hybrid_fp32/d/{file}" in said and message in said
    assert said.count("\n") == 1


def test_a_part_that_was_not_decoded_is_an_error(experiments, capsys):
    (experiments / "hybrid_fp32/d/test/text").unlink()
    arguments = [
        *("--systems", experiments / "hybrid_fp32", "--dumpdir", experiments / "dump"),
        *("--inference", "d", "--output", experiments / "results.json"),
    ]
    assert main(["hybrid-results", *map(str, arguments)]) == 1
    assert "hybrid_fp32/d/test/text" in capsys.readouterr().err
    assert not (experiments / "results.json").exists()


def test_a_model_in_binary_form_is_no_gmm_to_be_measured(tmp_path):
    (tmp_path / "final.mdl").write_text("<TransitionModel> </TransitionModel>")
    with pytest.raises(FileNotFoundError, match="no GMM in Kaldi's text form"):
        hybrid_results.describe_gmm(tmp_path)
