"""The task in ESPnet: parsers, saved configurations, training, spawned workers."""

import argparse
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from espnet2.utils.yaml_no_alias_safe_dump import yaml_no_alias_safe_dump
from hybrid.small_hybrid import CONFIG, NUM_PDFS, training_options, write_corpus

from espnet_quant4.bin import hybrid_train
from espnet_quant4.hybrid.stage_record import StageError
from espnet_quant4.hybrid.task import HybridTask, read_num_pdfs
from espnet_quant4.scheme import Scheme


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def parse(corpus: Path, output: Path, *options: str) -> argparse.Namespace:
    arguments = [*training_options(corpus, output), *options]
    return HybridTask.get_parser().parse_args(arguments)


def sizes(model: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict().items()}


def test_class_choices_are_asrs_and_the_tasks_own() -> None:
    actions = {action.dest: action for action in HybridTask.get_parser()._actions}
    assert {"quant_rnn", "rnn", "quant_vgg_rnn"} <= set(actions["encoder"].choices)
    assert {"frame_context", "sinc"} <= set(actions["preencoder"].choices)
    assert "specaug" in actions["specaug"].choices
    assert "global_mvn" in actions["normalize"].choices
    assert actions["model"].choices == ("hybrid",)
    assert HybridTask.required_data_names() == ("speech", "pdf_ids")
    assert HybridTask.required_data_names(inference=True) == ("speech",)


def test_saved_configuration_needs_no_other_file(corpus: Path, tmp_path: Path) -> None:
    scheme = tmp_path / "my scheme.yaml"
    scheme.write_text("linear:\n  weight: {quantizer: max, bits: 4}\n")
    number = tmp_path / "num_pdfs"
    number.write_text(f"{NUM_PDFS}\n")
    args = parse(corpus, tmp_path, "--model_conf", f"scheme={scheme}", "--num_pdfs", str(number))
    model = HybridTask.build_model(args)
    saved = tmp_path / "config.yaml"
    saved.write_text(yaml_no_alias_safe_dump(vars(args), indent=4, sort_keys=False))
    content = yaml.safe_load(saved.read_text())
    assert content["model_conf"]["scheme"] == Scheme.load(str(scheme)).to_dict()
    assert content["num_pdfs"] == NUM_PDFS
    scheme.unlink()
    number.unlink()
    loaded, _ = HybridTask.build_model_from_file(saved)
    assert sizes(loaded) == sizes(model)
    assert "output.quantizers.weight.clip_value" in sizes(loaded)


def test_scheme_of_the_encoder_alone_is_saved_too(corpus: Path, tmp_path: Path) -> None:
    args = parse(corpus, tmp_path, "--encoder_conf", "scheme=naive")
    model = HybridTask.build_model(args)
    assert args.encoder_conf["scheme"] == Scheme.load("naive").to_dict()
    assert len(model.output.quantizers) == 0 and any("quantizers" in n for n in sizes(model))


@pytest.mark.parametrize("options", [[], ["--model_conf", "scheme=tailored"]])
def test_printed_configuration_loads(
    corpus: Path,
    tmp_path: Path,
    options: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = [*training_options(corpus, tmp_path), *options]
    model = HybridTask.build_model(HybridTask.get_parser().parse_args(arguments))
    # What --print_config calls; it reads the command line.
    monkeypatch.setattr(sys, "argv", ["hybrid_train", *arguments])
    printed = tmp_path / "printed.yaml"
    with printed.open("w", encoding="utf-8") as file:
        HybridTask.print_config(file)
    content = yaml.safe_load(printed.read_text())
    # Defaults are spelled out; what build_model passes itself is not.
    assert content["encoder_conf"]["rnn_type"] == "lstm"
    assert content["model_conf"]["criterion"] == "ce"
    assert "input_size" not in content["preencoder_conf"]
    given = ["--config", str(printed), "--output_dir", str(tmp_path)]
    again = HybridTask.build_model(HybridTask.get_parser().parse_args(given))
    assert sizes(again) == sizes(model)


def test_required_options_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        hybrid_train.main(["--output_dir", "x"])
    assert stopped.value.code == 2 and "--num_pdfs" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["none/num_pdfs", "0", "-3", "2.5", None])
def test_wrong_num_pdfs(value: Any) -> None:
    with pytest.raises(ValueError, match="a number above 0 and a file that holds one"):
        read_num_pdfs(value)


def test_num_pdfs_file_that_holds_no_number(tmp_path: Path) -> None:
    (tmp_path / "num_pdfs").write_text("many\n")
    with pytest.raises(ValueError, match="num_pdfs: valid are a number"):
        read_num_pdfs(str(tmp_path / "num_pdfs"))
    assert read_num_pdfs(7) == read_num_pdfs(" 7 ") == 7


def test_features_instead_of_waveforms(corpus: Path, tmp_path: Path) -> None:
    args = parse(corpus, tmp_path, "--input_size", "6", "--encoder", "rnn")
    model = HybridTask.build_model(args)
    assert model.frontend is None and args.frontend is None
    assert model.encoder.enc[0].nbrnn.input_size == 12  # deltas: 1


def test_training_with_statistics_resumes_and_lowers_the_loss(tmp_path: Path) -> None:
    changes = {
        "normalize": "global_mvn",
        "model_conf": {"chunk_conf": {"size": 11, "mode": "random"}},
    }
    corpus = write_corpus(tmp_path, **changes)
    stats, output = tmp_path / "stats", tmp_path / "exp"
    collect = ["--collect_stats", "true", "--normalize", "none", "--output_dir", str(stats)]
    assert hybrid_train.main([*training_options(corpus, stats), *collect]) == 0
    assert (stats / "train" / "feats_stats.npz").exists()
    assert len((stats / "valid" / "pdf_ids_shape").read_text().splitlines()) == 8
    options = training_options(corpus, output)
    options += ["--normalize_conf", f"stats_file={stats}/train/feats_stats.npz", "--resume", "true"]
    assert hybrid_train.main([*options, "--max_epoch", "2"]) == 0
    assert hybrid_train.main([*options, "--max_epoch", "12"]) == 0
    checkpoint = torch.load(output / "checkpoint.pth", weights_only=True)
    epochs = checkpoint["reporter"]["stats"]
    assert sorted(epochs) == list(range(1, 13))
    assert epochs[12]["valid"]["loss"] < 0.6 * epochs[1]["valid"]["loss"]
    assert epochs[12]["valid"]["acc"] > 0.8
    assert (output / "valid.loss.ave.pth").exists()
    model, _ = HybridTask.build_model_from_file(
        output / "config.yaml", output / "valid.loss.ave.pth"
    )
    assert model.num_pdfs == NUM_PDFS
    # On another alignment it would go on with a network of the old one.
    rows = (corpus / "pdf_ids").read_text().splitlines()
    (corpus / "pdf_ids").write_text("\n".join([*rows[:-1], f"{rows[-1]} 0"]) + "\n")
    with pytest.raises(StageError, match=r"exp: was trained on something else: .*pdf_ids changed"):
        hybrid_train.main([*options, "--max_epoch", "13"])


def test_targets_that_do_not_fit_stop_the_training(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, utterances=2)
    lines = (corpus / "pdf_ids").read_text().splitlines()
    (corpus / "pdf_ids").write_text(f"{lines[0]}\nutt1 1 2 3\n")
    with pytest.raises(ValueError, match="utt1 has 3 ids for"):
        hybrid_train.main(training_options(corpus, tmp_path / "exp"))


@pytest.mark.slow
def test_two_spawned_workers_train_one_model(tmp_path: Path) -> None:
    """What ESPnet does with two GPUs, on the CPU: children that unpickle `HybridTask.main_worker`."""
    corpus = write_corpus(tmp_path, model_conf={"scheme": "tailored", "bottleneck_size": 8})
    args = parse(corpus, tmp_path / "exp", "--dist_backend", "gloo")
    args.version, args.distributed, args.dist_world_size = "test", True, 2
    args.dist_init_method = f"file://{tmp_path}/rendezvous"
    context = torch.multiprocessing.get_context("spawn")
    workers = []
    for rank in range(2):
        own = argparse.Namespace(**vars(args))
        own.dist_rank = rank
        workers.append(context.Process(target=HybridTask.main_worker, args=(own,)))
        workers[-1].start()
    for worker in workers:
        worker.join(timeout=600)
        assert worker.exitcode == 0
    checkpoint = torch.load(tmp_path / "exp" / "checkpoint.pth", weights_only=True)
    assert checkpoint["reporter"]["stats"][2]["train"]["loss"] > 0
    assert yaml.safe_load((tmp_path / "exp/config.yaml").read_text())["encoder"] == "quant_rnn"
    assert CONFIG["max_epoch"] == 2
