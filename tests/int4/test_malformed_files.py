"""Whatever is wrong with a file, the error is an Int4FileError that names the file and the fault."""

import json
import re

import pytest
import torch
from int4.malformed_files import mutated
from int4.small_recognizer import write_recognizer

from espnet_quant4.bin.main import main
from espnet_quant4.int4 import file_format
from espnet_quant4.int4.file_format import Int4FileError
from espnet_quant4.int4.model_file import load, save
from espnet_quant4.int4.stored_model import read_any_model

MUTATIONS = 200


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """Tensors and metadata of a small recognizer's file."""
    from espnet2.tasks.asr import ASRTask

    folder = tmp_path_factory.mktemp("recognizer")
    config, checkpoint = write_recognizer(folder)
    model, args = ASRTask.build_model_from_file(config, checkpoint)
    save(model, vars(args), folder / "model.int4")
    return file_format.read(folder / "model.int4")


def written(path, tensors, metadata):
    own = ("format", "format_version", "checksum")
    file_format.write(path, tensors, {k: v for k, v in metadata.items() if k not in own})
    return path


def outcome(function, path):
    """Return the message of an Int4FileError, or None; any other error fails the test."""
    try:
        function(path)
    except Int4FileError as error:
        return str(error)
    return None


@pytest.mark.slow
def test_nothing_else_comes_out_of_mutated_files(content, tmp_path, capsys):
    refused = 0
    for seed in range(MUTATIONS):
        tensors, metadata, what = mutated(*content, seed)
        path = written(tmp_path / "mutated.int4", tensors, metadata)
        try:
            of_reading, of_loading = outcome(read_any_model, path), outcome(load, path)
            status = main(["info", str(path)])
        except Exception as error:
            raise AssertionError(f"seed {seed}, {what}: {error!r}") from error
        assert status == (0 if of_reading is None else 1), what
        assert "Traceback" not in capsys.readouterr().err
        assert of_reading is None or of_reading == of_loading, what
        if of_loading is not None:
            refused += 1
            assert of_loading.startswith(f"{path}: "), what
    # The rest is harmless: defaults that were written out, options of training.
    assert refused > MUTATIONS / 2


WEIGHT = "encoder.enc.0.nbrnn.weight_ih_l0"


def descriptions_with(name, **changes):
    def change(tensors, metadata):
        found = json.loads(metadata["quantized"])
        found[name].update(changes)
        metadata["quantized"] = json.dumps(found)

    return change


def config_with(key, **changes):
    def change(tensors, metadata):
        config = json.loads(metadata["config"])
        config[key].update(changes)
        metadata["config"] = json.dumps(config)

    return change


def tensor_with(name, value):
    def change(tensors, metadata):
        tensors[name] = tensors[name].clone()
        tensors[name].view(-1)[0] = value

    return change


def without(key):
    return lambda tensors, metadata: metadata.pop(key)


def rebuilt_weight(tensors, metadata):
    tensors.pop(f"{WEIGHT}_scale")
    metadata["rebuilt"] = json.dumps([f"{WEIGHT}_scale"])


@pytest.mark.parametrize(
    "change, message",
    [
        (without("config"), "its metadata lack 'config'"),
        (descriptions_with(WEIGHT, bits=9), f"{WEIGHT}: its bits are 9; valid: 2 to 8"),
        (descriptions_with(WEIGHT, shape=[80]), f"{WEIGHT}: its shape is [80]; valid: [rows, col"),
        (descriptions_with(WEIGHT, groups=3), f"{WEIGHT}: its groups are 3; valid: what divides 80"),
        (descriptions_with(WEIGHT, bits=3), "and described as torch.uint8 of shape (80, 12)"),
        (tensor_with(WEIGHT, 0), f"{WEIGHT}: it holds the code -8; valid are those from -7"),
        (tensor_with(f"{WEIGHT}_scale", 0.0), f"{WEIGHT}_scale is not finite and above 0"),
        (tensor_with(f"{WEIGHT}_scale", torch.nan), f"{WEIGHT}_scale holds NaN"),
        (config_with("encoder_conf", hidden_size=21), "is described as"),
        (config_with("encoder_conf", hidden_size=10**9), "builds no model here (ValueError: it asks"),
        (config_with("encoder_conf", num_layers=10**6), "builds no model here (ValueError: it asks"),
        (config_with("frontend_conf", n_fft=10**9), "frontend_conf has n_fft: 1e+09"),
        (config_with("decoder_conf", hidden_size="12"), "builds no model here (TypeCheckError"),
        (rebuilt_weight, "'rebuilt' name more than tensors of frontend."),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(content, tmp_path, change, message):
    tensors, metadata = (dict(part) for part in content)
    change(tensors, metadata)
    path = written(tmp_path / "wrong.int4", tensors, metadata)
    with pytest.raises(Int4FileError, match=re.escape(message)) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: ")


def test_a_users_option_is_not_the_files_fault(content, tmp_path):
    path = written(tmp_path / "model.int4", *content)
    with pytest.raises(FileNotFoundError, match="none.yaml"):
        load(path, lm_train_config=str(tmp_path / "none.yaml"))
    with pytest.raises(TypeError, match="beam_sise"):
        load(path, beam_sise=3)


def test_a_stored_bpe_model_is_looked_at(content, tmp_path):
    tensors, metadata = (dict(part) for part in content)
    tensors["bpemodel"] = torch.arange(50, dtype=torch.uint8)
    path = written(tmp_path / "wrong.int4", tensors, metadata)
    with pytest.raises(Int4FileError, match="bpemodel is no SentencePiece model"):
        load(path)
