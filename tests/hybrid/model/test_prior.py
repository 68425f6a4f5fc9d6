"""Priors: values, pdf ids without training frames, wrong input, the command."""

import logging

import kaldiio
import numpy as np
import pytest

from espnet_quant4.bin import hybrid_prior
from espnet_quant4.bin.command import run_command
from espnet_quant4.hybrid.model import prior


def test_log_prior_of_counts() -> None:
    found = prior.log_prior(np.array([10, 30, 60]))
    np.testing.assert_allclose(found, np.log([0.1, 0.3, 0.6]), rtol=1e-6)
    assert found.dtype == np.float32


def test_unseen_ids_never_win_and_are_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = prior.log_prior(np.array([10, 0, 30, 0]))
    assert "2 of 4 pdf ids have no training frames" in caplog.text and ": 1, 3" in caplog.text
    # Even where the network is sure of the unseen id.
    log_posteriors = np.log(np.array([[1e-9, 1 - 3e-9, 1e-9, 1e-9]], dtype=np.float32))
    scores = log_posteriors - np.float32(0.3) * found
    assert np.isfinite(scores).all() and np.isfinite(0.1 * scores).all()
    assert scores[0].argmax() in (0, 2) and scores[0, 1] < -1e18


def test_floor_is_a_relative_frequency() -> None:
    assert prior.log_prior(np.array([1, 999]), floor=0.002)[0] == np.float32(prior.UNSEEN_LOG_PRIOR)
    assert prior.log_prior(np.array([1, 999]), floor=0.0005)[0] < 0
    with pytest.raises(ValueError, match="prior floor: 1.0"):
        prior.log_prior(np.array([1, 2]), floor=1.0)


@pytest.mark.parametrize("counts", [[], [0, 0], [1, -1], [1, np.nan], [[1, 2]]])
def test_what_is_no_counts(counts: list) -> None:
    with pytest.raises(ValueError, match="prior: "):
        prior.log_prior(np.array(counts))


def test_mean_posteriors_weigh_frames(tmp_path) -> None:
    first, second = np.array([[0.9, 0.1]]), np.array([[0.3, 0.7], [0.5, 0.5], [0.1, 0.9]])
    found = prior.mean_posteriors([np.log(first), np.log(second)])
    np.testing.assert_allclose(found, [1.8 / 4, 2.2 / 4])
    with pytest.raises(ValueError, match="no frame"):
        prior.mean_posteriors([])
    with pytest.raises(ValueError, match="sums to 2.*without --log_prior"):
        prior.mean_posteriors([np.log(2 * first)])


def test_unseen_ids_are_excluded_from_mean_posteriors() -> None:
    found = prior.exclude_unseen(np.log([0.5, 0.3, 0.2]), np.array([3, 0, 1]))
    assert found[1] == np.float32(prior.UNSEEN_LOG_PRIOR) and found[0] < 0 and found[2] < 0
    with pytest.raises(ValueError, match="pdf_counts has 2 values and the prior 3"):
        prior.exclude_unseen(np.zeros(3), np.array([1, 1]))


@pytest.mark.parametrize("text", ["", "1 2 3", "[ 1 2", "[ 1 x ]"])
def test_what_is_no_vector(text: str, tmp_path) -> None:
    (tmp_path / "counts").write_text(text)
    with pytest.raises(ValueError, match="counts: not a Kaldi text vector"):
        prior.read_vector(tmp_path / "counts")


def test_vectors_survive_the_file_and_are_kaldis(tmp_path) -> None:
    values = prior.log_prior(np.array([1, 0, 5]))
    prior.write_vector(tmp_path / "folder" / "log_prior", values)
    read = prior.read_vector(tmp_path / "folder" / "log_prior")
    assert np.array_equal(read.astype(np.float32), values)
    other = kaldiio.load_mat(str(tmp_path / "folder" / "log_prior"))
    np.testing.assert_array_equal(other.astype(np.float32), values)


def test_command(tmp_path, capsys, caplog) -> None:
    counts, output = tmp_path / "pdf_counts", tmp_path / "log_prior"
    counts.write_text("[ 1 0 3 ]\n")
    assert (
        run_command(
            "hybrid-prior",
            hybrid_prior.main,
            ["--pdf_counts", str(counts), "--output", str(output)],
        )
        == 0
    )
    np.testing.assert_allclose(prior.read_vector(output)[[0, 2]], np.log([0.25, 0.75]), rtol=1e-6)
    assert "saved" in capsys.readouterr().out

    posteriors = np.array([[0.2, 0.2, 0.6], [0.4, 0.2, 0.4]], dtype=np.float32)
    kaldiio.save_ark(
        str(tmp_path / "p.ark"), {"a": np.log(posteriors)}, scp=str(tmp_path / "p.scp")
    )
    arguments = ["--log_posteriors", str(tmp_path / "p.scp"), "--output", str(output)]
    assert run_command("hybrid-prior", hybrid_prior.main, arguments) == 0
    np.testing.assert_allclose(prior.read_vector(output), np.log([0.3, 0.2, 0.5]), rtol=1e-5)
    assert (
        run_command("hybrid-prior", hybrid_prior.main, [*arguments, "--pdf_counts", str(counts)])
        == 0
    )
    assert prior.read_vector(output)[1] > 1e18

    assert (
        run_command(
            "hybrid-prior", hybrid_prior.main, ["--pdf_counts", "none", "--output", str(output)]
        )
        == 1
    )
    assert "none" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run_command("hybrid-prior", hybrid_prior.main, ["--output", str(output)])
