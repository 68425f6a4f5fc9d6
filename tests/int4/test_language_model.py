"""A language model from training to one INT4 file, and in ESPnet's search."""

import io
import re
from contextlib import redirect_stdout

import numpy as np
import pytest
import torch
import yaml
from espnet2.bin import lm_train
from espnet2.bin.asr_inference import Speech2Text
from espnet2.tasks.lm import LMTask
from int4.small_recognizer import write_recognizer
from small_transducer import TOKENS

from espnet_quant4.bin.main import main
from espnet_quant4.int4 import convert, describe, model_file
from espnet_quant4.int4.embedding import Int4Embedding
from espnet_quant4.int4.file_format import Int4FileError, read
from espnet_quant4.int4.linear import Int4Linear
from espnet_quant4.int4.lm_file import load, save
from espnet_quant4.int4.lstm import Int4LSTM
from espnet_quant4.nn import QuantLinear
from espnet_quant4.trained_model import load_trained_model

WEIGHT8 = {"quantizer": "max", "bits": 8, "granularity": "row"}
# One table for both layers: equal codes.
TIED = {
    "lstm": {"weight_ih": WEIGHT8, "weight_hh": WEIGHT8, "input": {"quantizer": "max", "bits": 8},
             "hidden": {"quantizer": "fix", "bits": 8, "clip": 1.0}},
    "linear": {"weight": WEIGHT8, "input": {"quantizer": "max", "bits": 8}},
    "embedding": {"weight": WEIGHT8},
}  # fmt: skip


def texts(number, seed):
    """Sentences of a, b, c in which c follows b and b follows a."""
    rng = np.random.default_rng(seed)
    return [" ".join(["a b c"] * rng.integers(1, 4)).replace(" ", "") for _ in range(number)]


def options(folder, output, **lm_conf):
    """Return the options of a training of ESPnet's."""
    config = {
        "lm": "quant_seq_rnn",
        "lm_conf": {"unit": 16, "nlayers": 2, **lm_conf},
        "token_type": "char",
        "token_list": str(folder / "tokens.txt"),
        "optim": "adam",
        "optim_conf": {"lr": 0.02},
        "batch_type": "unsorted",
        "batch_size": 8,
        "max_epoch": 2,
        "num_workers": 0,
        "keep_nbest_models": 1,
        "use_tensorboard": False,
        "use_matplotlib": False,
        "best_model_criterion": [["valid", "loss", "min"]],
    }
    path = folder / f"{output}.yaml"
    path.write_text(yaml.safe_dump(config))
    arguments = ["--config", str(path), "--output_dir", str(folder / output), "--ngpu", "0"]
    for part in ("train", "valid"):
        arguments += [f"--{part}_data_path_and_name_and_type", f"{folder}/{part},text,text"]
        arguments += [f"--{part}_shape_file", f"{folder}/{part}"]
    return arguments


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with text, an FP32 model, a calibrated and trained one (`qat`) and `lm.int4`."""
    folder = tmp_path_factory.mktemp("lm")
    (folder / "tokens.txt").write_text("".join(f"{token}\n" for token in TOKENS))
    for part, number, seed in (("train", 64, 0), ("valid", 8, 1)):
        lines = [f"utt{i} {text}\n" for i, text in enumerate(texts(number, seed))]
        (folder / part).write_text("".join(lines))
    lm_train.main(options(folder, "fp32"))
    qat = options(folder, "qat", scheme="tailored")
    start = ["--init_param", str(folder / "fp32" / "valid.loss.ave.pth"), "--batches", "4"]
    calibrated = ["--output", str(folder / "calibrated.pth")]
    assert main(["calibrate", "--task", "lm", *qat, *start, *calibrated]) == 0
    lm_train.main([*qat, "--init_param", str(folder / "calibrated.pth")])
    shown = io.StringIO()
    with redirect_stdout(shown):
        assert main(["convert", *files(folder), "--output", str(folder / "lm.int4")]) == 0
    (folder / "converted.txt").write_text(shown.getvalue())
    return folder


def files(folder):
    return [
        *("--lm_train_config", str(folder / "qat" / "config.yaml")),
        *("--lm_model_file", str(folder / "qat" / "valid.loss.ave.pth")),
    ]


def emulated(folder, monkeypatch):
    monkeypatch.setenv("ESPNET_QUANT4_INFERENCE", "emulated")
    qat = folder / "qat"
    model, _ = load_trained_model(LMTask, qat / "config.yaml", qat / "valid.loss.ave.pth")
    monkeypatch.delenv("ESPNET_QUANT4_INFERENCE")
    return model.eval()


def test_calibration_sets_all_clips_from_the_float_model(trained):
    calibrated = torch.load(trained / "calibrated.pth", weights_only=True)
    fp32 = torch.load(trained / "fp32" / "valid.loss.ave.pth", weights_only=True)
    assert all(torch.equal(calibrated[name], value) for name, value in fp32.items())
    assert int(calibrated["lm.rnn.quantizers.l0.input.calibrated"]) > 0


def test_the_output_layer_has_8_bits_by_the_tailored_scheme(trained, monkeypatch):
    model = emulated(trained, monkeypatch).lm
    bits = {n: q.bits for n, q in model.decoder.quantizers.items()}
    assert bits == {"weight": 8, "input": 8}
    assert model.encoder.quantizers["weight"].bits == 4


def test_the_file_scores_as_the_emulated_model(trained, monkeypatch):
    expected = emulated(trained, monkeypatch)
    found, args = load(trained / "lm.int4")
    kinds = [type(module) for module in (found.lm.encoder, found.lm.rnn, found.lm.decoder)]
    assert kinds == [Int4Embedding, Int4LSTM, Int4Linear]
    assert not list(found.parameters()) and args.token_list == TOKENS
    ids = torch.tensor([[3, 4, 5, 3, 4, 5], [3, 4, 5, 0, 0, 0]])
    with torch.no_grad():
        costs = [model.nll(ids, torch.tensor([6, 3]))[0] for model in (found, expected)]
        torch.testing.assert_close(*costs, rtol=0, atol=1e-3)
        assert costs[0][0, 0] < 1.0  # it learned that texts begin with a
        # ESPnet's scorers, step by step.
        states = [[None, None], [None, None]]
        for prefix in (torch.tensor([[6], [6]]), torch.tensor([[6, 3], [6, 4]])):
            scores = []
            for i, model in enumerate((found, expected)):
                log_probabilities, states[i] = model.lm.batch_score(prefix, states[i], None)
                scores.append(log_probabilities)
            torch.testing.assert_close(*scores, rtol=0, atol=1e-3)
        _, state = found.lm.score(torch.tensor([6]), None, None)
        single, _ = found.lm.score(torch.tensor([6, 3]), state, None)
        torch.testing.assert_close(single, scores[0][0], rtol=0, atol=1e-5)
        hidden, cell = found.lm.zero_state()
        assert hidden.shape == cell.shape == (2, 16)


def test_commands_speak_of_a_language_model(trained, capsys):
    assert main(["info", str(trained / "lm.int4")]) == 0
    out = capsys.readouterr().out
    assert "quant_seq_rnn language model, 7 tokens" in out
    line = next(line for line in out.splitlines() if line.endswith(" lm.decoder.weight"))
    assert line.split()[0] == "8"
    converted = (trained / "converted.txt").read_text()
    assert not converted.startswith("float: ") and "times smaller" in converted
    assert main(["transcribe", str(trained / "lm.int4"), "x.wav"]) == 1
    assert "task lm, not asr. Use: load(RECOGNIZER, lm_file=" in capsys.readouterr().err
    fp32 = ["--init_param", str(trained / "fp32" / "valid.loss.ave.pth"), "--output", "x.pth"]
    assert main(["calibrate", "--task", "lm", *options(trained, "float"), *fp32]) == 1
    assert "Name a scheme: lm_conf: scheme: tailored, or --lm_conf" in capsys.readouterr().err


def test_training_without_calibration_names_the_command(trained, monkeypatch):
    monkeypatch.setattr("espnet_quant4.quantizers.calibration._warned", False)
    with pytest.warns(UserWarning, match="espnet-quant4 calibrate` first .*--task lm"):
        lm_train.main([*options(trained, "uncalibrated", scheme="naive"), "--max_epoch", "1"])


def test_tied_tables_are_one_in_the_file(trained, tmp_path, capsys):
    qat = options(trained, "tied", scheme=TIED, tie_weights=True)
    output = ["--output", str(tmp_path / "tied.pth"), "--random", "true"]
    assert main(["calibrate", "--task", "lm", *qat, *output]) == 0
    lm_train.main([*qat, "--dry_run", "true"])
    config = trained / "tied" / "config.yaml"
    model, args = load_trained_model(LMTask, config, tmp_path / "tied.pth")
    assert model.lm.decoder.weight is model.lm.encoder.weight
    converted = convert(model)
    assert converted.lm.decoder.weight is converted.lm.encoder.weight
    assert describe(converted)["lm.decoder.weight"]["tied_to"] == "lm.encoder.weight"
    save(model, vars(args), tmp_path / "tied.int4")
    tensors, _ = read(tmp_path / "tied.int4")
    assert "lm.encoder.weight" in tensors and "lm.decoder.weight" not in tensors
    loaded, _ = load(tmp_path / "tied.int4")
    assert loaded.lm.decoder.weight is loaded.lm.encoder.weight
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        costs = [m.nll(ids, torch.tensor([3]))[0] for m in (loaded, converted)]
    assert torch.equal(*costs)
    capsys.readouterr()
    assert main(["info", str(tmp_path / "tied.int4")]) == 0
    out = capsys.readouterr().out
    assert "lm.decoder.weight is lm.encoder.weight" in out
    numbers = sum(p.numel() for name, p in model.named_parameters() if "quantizers" not in name)
    assert f"{4 * numbers:,} bytes of weights in float32" in out


def test_a_checkpoint_serves_espnets_search(trained, tmp_path):
    config, checkpoint = write_recognizer(tmp_path)
    speech = np.random.default_rng(0).normal(size=8000).astype(np.float32)
    qat = trained / "qat"
    results = {}
    for kind in ("default", "tsd"):
        for weight in (0.0, 2.0):
            recognizer = Speech2Text(
                config, checkpoint, beam_size=3, ctc_weight=0.0, lm_weight=weight,
                transducer_conf={"search_type": kind, "max_sym_exp": 2},
                lm_train_config=qat / "config.yaml", lm_file=qat / "valid.loss.ave.pth",
            )  # fmt: skip
            results[kind, weight] = recognizer(speech)[0][3]
            assert len(results[kind, weight].yseq) > 1
        without, fused = results[kind, 0.0], results[kind, 2.0]
        assert float(fused.score) != pytest.approx(float(without.score), abs=0.1)


def test_a_file_serves_a_recognizers_file(trained, tmp_path):
    config, checkpoint = write_recognizer(tmp_path)
    recognizer = ["--asr_train_config", str(config), "--asr_model_file", str(checkpoint)]
    assert main(["convert", *recognizer, "--output", str(tmp_path / "asr.int4")]) == 0
    search = {"beam_size": 3, "ctc_weight": 0.0, "lm_weight": 2.0}
    deployed = model_file.load(tmp_path / "asr.int4", lm_file=trained / "lm.int4", **search)
    assert isinstance(deployed.beam_search_transducer.lm.decoder, Int4Linear)
    qat = trained / "qat"
    by_checkpoint = model_file.load(
        tmp_path / "asr.int4",
        lm_train_config=qat / "config.yaml",
        lm_file=qat / "valid.loss.ave.pth",
        **search,
    )
    assert isinstance(by_checkpoint.beam_search_transducer.lm.decoder, QuantLinear)
    speech = np.random.default_rng(0).normal(size=8000).astype(np.float32)
    (text, _, ids, found), (other, _, _, expected) = (
        r(speech)[0] for r in (deployed, by_checkpoint)
    )
    assert text == other and len(ids) > 0
    assert float(found.score) == pytest.approx(float(expected.score), abs=1e-3)


def test_a_language_model_of_other_tokens_is_refused(trained, tmp_path):
    config, checkpoint = write_recognizer(tmp_path)
    recognizer = ["--asr_train_config", str(config), "--asr_model_file", str(checkpoint)]
    assert main(["convert", *recognizer, "--output", str(tmp_path / "asr.int4")]) == 0
    qat = trained / "qat"
    model, args = load_trained_model(LMTask, qat / "config.yaml", qat / "valid.loss.ave.pth")
    swapped = [*TOKENS[:3], "b", "a", *TOKENS[5:]]
    save(model, {**vars(args), "token_list": swapped}, tmp_path / "other.int4")
    with pytest.raises(ValueError, match="differ in 'b' for 'a', 'a' for 'b'.*one token list"):
        model_file.load(tmp_path / "asr.int4", lm_file=tmp_path / "other.int4")
    with pytest.raises(Int4FileError, match="holds a model of task asr, not lm"):
        model_file.load(tmp_path / "asr.int4", lm_file=tmp_path / "asr.int4")
    with pytest.raises(Int4FileError, match=re.escape("holds a model of task lm, not asr")):
        model_file.load(trained / "lm.int4")
