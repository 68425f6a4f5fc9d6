"""From FP32 to 4 bits: calibration, quantization-aware training, INT4 scores, the INT4 file."""

from pathlib import Path

import kaldiio
import numpy as np
import pytest
import torch
import yaml
from hybrid.small_hybrid import training_options, write_corpus

from espnet_quant4.bin import hybrid_inference, hybrid_prior, hybrid_train
from espnet_quant4.bin.main import main
from espnet_quant4.hybrid.model_file import load, save
from espnet_quant4.hybrid.scorer import AcousticScorer
from espnet_quant4.hybrid.task import HybridTask
from espnet_quant4.int4.file_format import Int4FileError
from espnet_quant4.int4.model_file import load as load_recognizer

# The training configuration of the quantized model says more than a user of it has.
TRAINING_ONLY = {"chunk_conf": {"size": 9, "mode": "random"}, "label_smoothing": 0.1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with `fp32`, calibrated and trained `tailored`, `model.int4` and the log prior."""
    folder = write_corpus(
        tmp_path_factory.mktemp("trained"), model_conf={"bottleneck_size": 8, **TRAINING_ONLY}
    )
    prior = ["--pdf_counts", str(folder / "pdf_counts"), "--output", str(folder / "log_prior")]
    assert hybrid_prior.main(prior) == 0
    fp32, tailored = folder / "fp32", folder / "tailored"
    assert hybrid_train.main([*training_options(folder, fp32), "--max_epoch", "8"]) == 0
    quantized = [*training_options(folder, tailored), "--model_conf", "scheme=tailored"]
    start = ["--init_param", str(fp32 / "valid.loss.ave.pth"), "--batches", "2"]
    output = ["--output", str(tailored / "calibrated.pth")]
    assert main(["calibrate", "--task", "hybrid", *quantized, *start, *output]) == 0
    start = ["--init_param", str(tailored / "calibrated.pth")]
    assert hybrid_train.main([*quantized, *start, "--optim_conf", "lr=0.001"]) == 0
    assert main(["convert", *model_options(tailored), *prior_option(folder), *int4(folder)]) == 0
    return folder


def model_options(system: Path) -> list[str]:
    return [
        *("--hybrid_train_config", str(system / "config.yaml")),
        *("--hybrid_model_file", str(system / "valid.loss.ave.pth")),
    ]


def prior_option(folder: Path) -> list[str]:
    return ["--log_prior", str(folder / "log_prior")]


def int4(folder: Path) -> list[str]:
    return ["--output", str(folder / "model.int4")]


def scores_of(folder: Path, output: Path, *options: str) -> dict[str, np.ndarray]:
    data = ["--data_path_and_name_and_type", f"{folder}/wav.scp,speech,sound"]
    arguments = [*options, *data, "--num_workers", "0", "--output_dir", str(output)]
    assert hybrid_inference.main(arguments) == 0
    return dict(kaldiio.load_scp(str(output / "scores.scp")))


def test_calibration_starts_from_the_float_model(trained: Path) -> None:
    fp32 = torch.load(trained / "fp32" / "valid.loss.ave.pth", weights_only=True)
    calibrated = torch.load(trained / "tailored" / "calibrated.pth", weights_only=True)
    assert all(torch.equal(calibrated[name], value) for name, value in fp32.items())
    flags = {name: int(value) for name, value in calibrated.items() if name.endswith("calibrated")}
    activations = {n for n in flags if n.rpartition(".")[0].endswith(("input", "hidden"))}
    assert {"output.quantizers.input.calibrated", "bottleneck.quantizers.input.calibrated"} <= (
        activations
    )
    assert all(flags[name] > 0 for name in activations)


def test_quantized_training_keeps_what_was_learned(trained: Path) -> None:
    losses = {}
    for name in ("fp32", "tailored"):
        state = torch.load(trained / name / "checkpoint.pth", weights_only=True)
        epochs = state["reporter"]["stats"]
        losses[name] = epochs[max(epochs)]["valid"]["loss"]
        first = epochs[1]["valid"]["loss"]
    assert first < 2 * losses["fp32"] and losses["tailored"] < 1.5 * losses["fp32"]


def test_emulated_int4_and_file_agree(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*model_options(trained / "tailored"), *prior_option(trained)]
    found = {}
    for inference in ("emulated", "int4"):
        monkeypatch.setenv("ESPNET_QUANT4_INFERENCE", inference)
        found[inference] = scores_of(trained, tmp_path / inference, *options)
    monkeypatch.delenv("ESPNET_QUANT4_INFERENCE")
    file = ["--int4_file", str(trained / "model.int4")]
    found["file"] = scores_of(trained, tmp_path / "file", *file)
    for name, emulated in found["emulated"].items():
        for other in ("int4", "file"):
            # Off the grid's ties, where float32 rounding decides, the codes are equal.
            difference = np.abs(found[other][name] - emulated)
            assert np.median(difference) < 1e-5 and difference.mean() < 2e-3
            np.testing.assert_array_equal(found[other][name].argmax(1), emulated.argmax(1))


def test_the_file_alone_is_enough(trained: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.int4"
    moved.write_bytes((trained / "model.int4").read_bytes())
    model, args, prior = load(moved)
    assert prior is not None and prior.shape == (4,)
    assert args.num_pdfs == 4 and not (TRAINING_ONLY.keys() & args.model_conf.keys())
    assert type(model.output).__name__ == "Int4Linear" and not list(model.output.parameters())
    scorer = AcousticScorer(int4_file=moved)
    speech = np.random.default_rng(0).normal(size=8000).astype(np.float32)
    raw = AcousticScorer(int4_file=moved, prior_scale=0.0)(speech)
    np.testing.assert_allclose(np.exp(raw).sum(1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(scorer(speech), raw - prior, atol=1e-5)
    # What happens to the file afterwards does not reach a model that was loaded from it.
    fresh = AcousticScorer(int4_file=moved)
    with moved.open("r+b") as opened:
        opened.write(b"\xff" * moved.stat().st_size)
        opened.truncate(100)
    for loaded in (scorer, fresh):
        np.testing.assert_allclose(loaded(speech), raw - prior, atol=1e-5)
    with pytest.raises(Int4FileError, match=f"{moved}: truncated"):
        AcousticScorer(int4_file=moved)
    moved.write_bytes((trained / "model.int4").read_bytes())
    with pytest.raises(ValueError, match="device: cuda; an INT4 file computes on the CPU"):
        AcousticScorer(int4_file=moved, device="cuda")


def test_info_of_the_file(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(trained / "model.int4")]) == 0
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if line.endswith(" output.weight"))
    assert line.split()[0] == "8" and "4x8" in line
    assert "quant_rnn + hybrid, 4 pdf ids" in out and "times smaller" in out
    assert any(line.endswith(" log_prior") for line in out.splitlines())


def test_files_of_the_two_tasks_are_told_apart(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = "holds a model of task hybrid, not asr.*hybrid-inference --int4_file"
    with pytest.raises(Int4FileError, match=message):
        load_recognizer(trained / "model.int4")
    assert main(["transcribe", str(trained / "model.int4"), "x.wav"]) == 1
    assert "task hybrid" in capsys.readouterr().err


def test_convert_refuses(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["--output", str(tmp_path / "model.int4")]
    fp32 = model_options(trained / "fp32")
    assert main(["convert", *fp32, *output]) == 1
    assert "no layer to convert" in capsys.readouterr().err
    wrong = [
        [],
        fp32[:2],
        [*fp32, "--asr_train_config", "config.yaml"],
        ["--asr_train_config", "a", "--asr_model_file", "b", "--log_prior", "c"],
    ]
    for arguments in wrong:
        with pytest.raises(SystemExit) as stopped:
            main(["convert", *arguments, *output])
        assert stopped.value.code == 2
    assert main(["convert", *fp32, "--log_prior", "none", *output]) == 1
    (tmp_path / "log_prior").write_text("[ -1 ]\n")
    tailored = model_options(trained / "tailored")
    assert main(["convert", *tailored, "--log_prior", str(tmp_path / "log_prior"), *output]) == 1
    assert "log prior has 1 values and the model 4" in capsys.readouterr().err
    assert not (tmp_path / "model.int4").exists()


def test_statistics_of_features_are_in_the_file(trained: Path, tmp_path: Path) -> None:
    """A model with `global_mvn` needs the file that its configuration names only once."""
    statistics = tmp_path / "stats.npz"
    np.savez(statistics, count=2.0, sum=np.full(10, -20.0), sum_square=np.full(10, 300.0))
    config = yaml.safe_load((trained / "tailored" / "config.yaml").read_text())
    config.update(normalize="global_mvn", normalize_conf={"stats_file": str(statistics)})
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    model, args = HybridTask.build_model_from_file(
        tmp_path / "config.yaml", trained / "tailored" / "valid.loss.ave.pth"
    )
    save(model, vars(args), tmp_path / "model.int4")
    statistics.unlink()
    loaded, _, prior = load(tmp_path / "model.int4")
    assert prior is None
    torch.testing.assert_close(loaded.normalize.mean.float(), torch.full((10,), -10.0))
    torch.testing.assert_close(loaded.normalize.std.float(), torch.full((10,), 50.0**0.5))


def test_calibrate_refuses_an_unknown_task(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["calibrate", "--task", "hybird", "--output", "x"])
    assert stopped.value.code == 2 and "hybrid" in capsys.readouterr().err
