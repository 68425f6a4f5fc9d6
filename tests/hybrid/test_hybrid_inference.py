"""Scores on disk: values, priors, interruptions, bad utterances, packed models."""

import logging
import os
import shutil
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile
import torch
from hybrid.small_hybrid import NUM_PDFS, SAMPLING_RATE, training_options, write_corpus

from espnet_quant4.bin import hybrid_inference, hybrid_pack, hybrid_prior, hybrid_train
from espnet_quant4.bin.command import run_command
from espnet_quant4.hybrid.score_archive import ScoreArchive
from espnet_quant4.hybrid.scorer import AcousticScorer


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with a trained model in `exp` and its log prior."""
    folder = write_corpus(tmp_path_factory.mktemp("trained"), max_epoch=10)
    assert hybrid_train.main(training_options(folder, folder / "exp")) == 0
    counts = ["--pdf_counts", str(folder / "pdf_counts")]
    assert hybrid_prior.main([*counts, "--output", str(folder / "exp" / "log_prior")]) == 0
    return folder


def options_of(folder: Path) -> list[str]:
    return [
        *("--hybrid_train_config", str(folder / "exp" / "config.yaml")),
        *("--hybrid_model_file", str(folder / "exp" / "valid.loss.ave.pth")),
        *("--log_prior", str(folder / "exp" / "log_prior")),
    ]


def infer(folder: Path, output: Path, *options: str, model: list[str] | None = None) -> int:
    return run_command(
        "hybrid-inference",
        hybrid_inference.main,
        [
            *(options_of(folder) if model is None else model),
            *("--data_path_and_name_and_type", f"{folder}/wav.scp,speech,sound"),
            *("--num_workers", "0", "--output_dir", str(output), *options),
        ],
    )


def read_scores(output: Path) -> dict[str, np.ndarray]:
    return dict(kaldiio.load_scp(str(output / "scores.scp")))


def test_scores_are_log_likelihoods_up_to_a_constant(trained: Path, tmp_path: Path) -> None:
    assert infer(trained, tmp_path) == 0
    scores = read_scores(tmp_path)
    assert list(scores) == [f"utt{i}" for i in range(8)]
    assert not (tmp_path / "failed.txt").exists() and not (tmp_path / "keys.left").exists()
    raw = tmp_path / "raw"
    model = options_of(trained)[:4]
    assert infer(trained, raw, model=model) == 0
    log_prior = np.log(kaldiio.load_mat(str(trained / "pdf_counts")))
    log_prior -= np.logaddexp.reduce(log_prior)
    ids = dict(line.split(" ", 1) for line in (trained / "pdf_ids").read_text().splitlines())
    right = []
    for name, posteriors in read_scores(raw).items():
        assert posteriors.dtype == np.float32 and posteriors.shape[1] == NUM_PDFS
        np.testing.assert_allclose(np.exp(posteriors).sum(1), 1, rtol=1e-5)
        np.testing.assert_allclose(scores[name], posteriors - log_prior, atol=1e-5)
        wanted = np.array(ids[name].split(), dtype=int)
        assert 0 <= len(posteriors) - len(wanted) <= 1
        right.append((posteriors.argmax(1)[: len(wanted)] == wanted).mean())
    assert np.mean(right) > 0.8
    assert infer(trained, tmp_path / "half", "--prior_scale", "0.5") == 0
    np.testing.assert_allclose(
        read_scores(tmp_path / "half")["utt1"],
        read_scores(raw)["utt1"] - 0.5 * log_prior,
        atol=1e-5,
    )


def test_seconds_of_scoring_and_audio(trained: Path, tmp_path: Path) -> None:
    assert infer(trained, tmp_path) == 0
    spent, audio = map(float, (tmp_path / "seconds").read_text().split())
    samples = [
        len(soundfile.read(line.split()[1])[0])
        for line in (trained / "wav.scp").read_text().splitlines()
    ]
    assert audio == pytest.approx(sum(samples) / SAMPLING_RATE, abs=1e-4) and spent > 0


def test_an_interrupted_run_goes_on(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert infer(trained, tmp_path / "whole") == 0
    whole = read_scores(tmp_path / "whole")
    cut = tmp_path / "cut"
    keys = tmp_path / "keys"
    keys.write_text("utt0\nutt1\nutt2\n")
    assert infer(trained, cut, "--key_file", str(keys)) == 0
    # As if the process had died in the fourth utterance: half a matrix, half a line of the index.
    first_run = (cut / "scores.ark").stat().st_size
    with (cut / "scores.ark").open("ab") as ark:
        ark.write(b"utt3 \0BFM \4\1\0\0")
    with (cut / "scores.scp").open("a") as index:
        index.write(f"utt3 {cut}/sco")
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert infer(trained, cut) == 0
    assert "8 utterances, 3 scored already" in caplog.text
    assert "scored utt3" in caplog.text and "scored utt2" not in caplog.text
    found = read_scores(cut)
    assert list(found) == list(whole)
    assert all(np.array_equal(found[name], whole[name]) for name in whole)
    # Nothing of the half matrix is left: the archive can be read from its start as well.
    assert [name for name, _ in kaldiio.load_ark(str(cut / "scores.ark"))] == list(whole)
    assert (cut / "scores.ark").stat().st_size > first_run
    audio = [float((f / "seconds").read_text().split()[1]) for f in (cut, tmp_path / "whole")]
    assert audio[0] == pytest.approx(audio[1])


def test_scores_of_another_model_are_not_kept(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert infer(trained, tmp_path) == 0
    before = read_scores(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert infer(trained, tmp_path, "--prior_scale", "0.3") == 0
    assert "made with another model, prior, option or data (prior_scale changed)" in caplog.text
    after = read_scores(tmp_path)
    assert list(after) == list(before) and not np.allclose(after["utt0"], before["utt0"])


def test_only_what_is_asked_for_is_in_the_index(trained: Path, tmp_path: Path) -> None:
    """As where the utterances are distributed over more jobs than before."""
    assert infer(trained, tmp_path) == 0
    (tmp_path / "keys").write_text("utt3\nutt5\n")
    assert infer(trained, tmp_path, "--key_file", str(tmp_path / "keys")) == 0
    assert list(read_scores(tmp_path)) == ["utt3", "utt5"]


def test_scores_of_changed_data_are_not_kept(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    data, model = tmp_path / "data", options_of(trained)
    lines = (trained / "wav.scp").read_text().splitlines()
    (data / "wav.scp").write_text(lines[0] + "\n")
    assert infer(data, tmp_path / "out", model=model) == 0
    before = read_scores(tmp_path / "out")["utt0"]
    (data / "wav.scp").write_text("utt0 " + lines[1].split()[1] + "\n")
    assert infer(data, tmp_path / "out", model=model) == 0
    assert read_scores(tmp_path / "out")["utt0"].shape != before.shape
    # The list as it was, with another recording at its place.
    shutil.copy(lines[0].split()[1], data / "utt0.wav")
    (data / "wav.scp").write_text(f"utt0 {data}/utt0.wav\n")
    assert infer(data, tmp_path / "out", model=model) == 0
    shutil.copy(lines[1].split()[1], data / "utt0.wav")
    assert infer(data, tmp_path / "out", model=model) == 0
    assert read_scores(tmp_path / "out")["utt0"].shape != before.shape


def test_failed_utterances_are_listed_and_the_others_scored(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    soundfile.write(folder / "short.wav", np.zeros(50), SAMPLING_RATE)
    noise = np.random.default_rng(0).normal(size=2000) * 0.1
    noise[100] = np.nan
    soundfile.write(folder / "odd.wav", noise, SAMPLING_RATE, subtype="FLOAT")
    rows = [f"short {folder}/short.wav", f"odd {folder}/odd.wav"]
    rows += (trained / "wav.scp").read_text().splitlines()[:2]
    (folder / "wav.scp").write_text("\n".join(rows) + "\n")
    status = infer(folder, tmp_path / "out", model=options_of(trained))
    assert status == 1
    assert list(read_scores(tmp_path / "out")) == ["utt0", "utt1"]
    assert (
        "short the longest utterance of the batch has 50 samples"
        in (tmp_path / "out" / "failed.txt").read_text()
    )
    assert (
        "odd speech holds NaN or infinite values" in (tmp_path / "out" / "failed.txt").read_text()
    )


@pytest.mark.parametrize(
    "model, message",
    [
        ([], "give either hybrid_train_config and hybrid_model_file, or int4_file"),
        (["--int4_file", "none.int4"], "none.int4"),
        (["--hybrid_train_config", "none.yaml", "--hybrid_model_file", "none.pth"], "none.yaml"),
    ],
)
def test_wrong_models(
    model: list[str],
    message: str,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert infer(trained, tmp_path, model=model) == 1
    assert message in capsys.readouterr().err


def test_a_prior_of_another_tree_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log_prior").write_text("[ -1 -2 -3 ]\n")
    assert infer(trained, tmp_path, "--log_prior", str(tmp_path / "log_prior")) == 1
    assert "log prior has 3 values and the model 4 outputs" in capsys.readouterr().err


def test_wrong_numbers(trained: Path, tmp_path: Path) -> None:
    for wrong in (["--num_threads", "0"], ["--ngpu", "2"]):
        with pytest.raises(SystemExit) as stopped:
            infer(trained, tmp_path, *wrong)
        assert stopped.value.code == 2


def test_one_thread_unless_asked(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    monkeypatch.setattr(
        hybrid_inference, "run", lambda args: threads.append(torch.get_num_threads()) or 0
    )
    torch.set_num_threads(2)
    assert infer(trained, tmp_path) == 0
    assert infer(trained, tmp_path, "--num_threads", "3") == 0
    assert threads == [1, 3]


def test_a_packed_model_needs_no_other_file(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also its feature statistics, which the configuration names by a path."""
    statistics = tmp_path / "exp" / "feats_stats.npz"
    statistics.parent.mkdir()
    np.savez(statistics, count=2.0, sum=np.full(10, -20.0), sum_square=np.full(10, 300.0))
    config = (trained / "exp" / "config.yaml").read_text()
    config = config.replace("normalize: utterance_mvn", "normalize: global_mvn")
    config = config.replace(
        "normalize_conf: {}", "normalize_conf: {stats_file: exp/feats_stats.npz}"
    )
    (tmp_path / "exp" / "config.yaml").write_text(config)
    for name in ("valid.loss.ave.pth", "log_prior", "checkpoint.pth"):
        (tmp_path / "exp" / name).write_bytes((trained / "exp" / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    direct = AcousticScorer("exp/config.yaml", "exp/valid.loss.ave.pth", log_prior="exp/log_prior")
    pack = ["--hybrid_train_config", "exp/config.yaml", "--outpath", "model.zip"]
    pack += ["--hybrid_model_file", "exp/valid.loss.ave.pth", "--log_prior", "exp/log_prior"]
    assert hybrid_pack.main(pack) == 0
    os.rename("exp", "moved")
    packed = AcousticScorer.from_pretrained(str(tmp_path / "model.zip"))
    speech = np.random.default_rng(0).normal(size=4000).astype(np.float32)
    np.testing.assert_array_equal(packed(speech), direct(speech))
    assert not np.allclose(packed(speech), packed(0.1 * speech), atol=1e-2)
    assert infer(trained, tmp_path / "out", model=["--model_tag", str(tmp_path / "model.zip")]) == 0
    assert len(read_scores(tmp_path / "out")) == 8
    # An archive of the same name is another model.
    (tmp_path / "exp").symlink_to("moved")
    (tmp_path / "moved" / "log_prior").write_text("[ 0 0 0 0 ]\n")
    assert hybrid_pack.main(pack) == 0
    again = AcousticScorer.from_pretrained(str(tmp_path / "model.zip"))
    assert not np.allclose(again(speech), packed(speech))
    for option, value, message in (
        ("--log_prior", "none/log_prior", "none/log_prior"),
        ("--hybrid_model_file", "none.pth", "none.pth: no such file"),
        ("--hybrid_model_file", "exp/checkpoint.pth", "state of a training"),
        ("--outpath", "model.rar", "model.rar: valid endings are .zip"),
    ):
        with pytest.raises((OSError, ValueError), match=message):
            hybrid_pack.main([*pack, option, value])


def test_archive_without_a_whole_utterance_starts_again(tmp_path: Path) -> None:
    archive = ScoreArchive(tmp_path, {"a": 1}, ["utt0"])
    archive.ark.write_bytes(b"utt0 \0BFM")
    archive.index.write_text("utt0 scor")
    again = ScoreArchive(tmp_path, {"a": 1}, ["utt0"])
    assert not again.done and not again.ark.exists()
    again.write("utt0", np.ones((2, 3), dtype=np.float32), 0.5, 2.0)
    assert again.finish() == (0.5, 2.0)
    np.testing.assert_array_equal(read_scores(tmp_path)["utt0"], np.ones((2, 3)))
