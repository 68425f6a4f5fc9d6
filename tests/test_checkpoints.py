"""Every key of a checkpoint is accounted for, and every other file is told for what it is."""

import io
import zipfile

import pytest
import torch
from small_transducer import SCHEME, build_transducer, random_batch

from espnet_quant4.checkpoints import CheckpointError, load_checkpoint, read_checkpoint
from espnet_quant4.initial_parameters import load_initial_parameters, still_random
from espnet_quant4.nn import QuantEmbedding, QuantLinear
from espnet_quant4.packed_models import packed_files
from espnet_quant4.quantizers.calibration import calibrating

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.fixture(scope="module")
def trained():
    """A calibrated quantized model and a float one, by name, with their states."""
    models = {"quantized": build_transducer(SCHEME), "float": build_transducer()}
    with calibrating(models["quantized"]), torch.no_grad():
        models["quantized"](**random_batch())
    return models


def saved(content):
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html></html>", "is a web page; download"),
        (LFS, "pointer of git-lfs.*git lfs pull"),
        (b"hello", "not a file of torch.save"),
        (b"\x80", "not a file of torch.save"),
        (saved({"a": torch.ones(9)})[:-40], "is cut off or damaged"),
        (b'0000000{"__metadata__":{}}', "safetensors, such as an INT4 file"),
        (saved([torch.ones(1)]), "holds a list; a checkpoint holds tensors by name"),
        (saved({}), "holds no parameters"),
        (saved({"a": torch.ones(1), "b": 3}), r"no tensors: b \(int\)"),
        (saved({"model": {}, "optimizers": [], "reporter": {}}), "state of a training.*other.pth"),
        (saved({"state_dict": {}, "pytorch-lightning_version": "2"}), "state of a training"),
        (saved(torch.nn.Linear(1, 1)), "Python objects beside tensors.*model.state_dict"),
    ],
)
def test_other_files_are_told_for_what_they_are(tmp_path, content, message):
    (tmp_path / "other.pth").write_bytes(b"")
    (tmp_path / "model.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"model.pth: .*{message}"):
        read_checkpoint(tmp_path / "model.pth")


def test_missing_files_folders_and_packed_models(tmp_path):
    (tmp_path / "good.pth").write_bytes(saved({"a": torch.ones(1)}))
    with pytest.raises(CheckpointError, match="none.pth: no such file. In .* there are: good.pth"):
        read_checkpoint(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="is a folder; .*there are: good.pth"):
        read_checkpoint(tmp_path)
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr(
            "meta.yaml", "files: {asr_model_file: a.pth}\nyaml_files: {asr_train_config: c.yaml}"
        )
    with pytest.raises(CheckpointError, match="packed model. Unpack it .*--asr_model_file a.pth"):
        read_checkpoint(tmp_path / "model.zip")
    assert packed_files(tmp_path / "good.pth") is None  # PyTorch's files are archives too


def test_what_deepspeed_wraps_is_found(tmp_path):
    (tmp_path / "a.pth").write_bytes(saved({"module": {"a": torch.ones(1)}}))
    assert list(read_checkpoint(tmp_path / "a.pth")) == ["a"]


def test_a_whole_checkpoint_loads(trained, tmp_path):
    torch.save(trained["quantized"].state_dict(), tmp_path / "a.pth")
    other = build_transducer(SCHEME, seed=3)
    load_checkpoint(other, tmp_path / "a.pth")
    for name, value in trained["quantized"].state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def drop(state):
    for name in [name for name in state if name.startswith("decoder.")]:
        del state[name]


def spoil(state):
    state["ctc.ctc_lo.weight"][1, 2] = float("nan")


@pytest.mark.parametrize(
    "change, message",
    [
        (drop, "5 missing: decoder.embed.weight, .*decoder.decoder.0.bias_hh_l0;?"),
        (lambda state: state.update(foo=torch.ones(1)), "1 not in the model: foo"),
        (
            lambda state: state.update({"ctc.ctc_lo.bias": torch.ones(3)}),
            r"1 of another shape: ctc.ctc_lo.bias \(3 here, 7 in the model\)",
        ),
        (spoil, r"1 tensors hold NaN or infinite values: ctc.ctc_lo.weight \(1 of 42\)"),
    ],
)
def test_every_key_is_accounted_for(trained, tmp_path, change, message):
    state = {name: value.clone() for name, value in trained["float"].state_dict().items()}
    change(state)
    torch.save(state, tmp_path / "a.pth")
    model = build_transducer(seed=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(model, tmp_path / "a.pth")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_foreign_tensor_is_no_checkpoint(tmp_path):
    torch.save({"foo": torch.ones(1)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="missing: .* and .* more; 1 not in the model: foo"):
        load_checkpoint(build_transducer(), tmp_path / "a.pth")


def test_float_and_quantized_are_told_apart(trained, tmp_path):
    for name, model in trained.items():
        torch.save(model.state_dict(), tmp_path / f"{name}.pth")
    with pytest.raises(CheckpointError, match="is a float checkpoint.*Calibrate first"):
        load_checkpoint(build_transducer(SCHEME), tmp_path / "float.pth")
    load_checkpoint(build_transducer(SCHEME), tmp_path / "float.pth", needs_quantizers=False)
    with pytest.raises(CheckpointError, match="is a quantized checkpoint.*of a float model"):
        load_checkpoint(build_transducer(), tmp_path / "quantized.pth")
    fewer = {**SCHEME, "embedding": {"weight": None}}
    with pytest.raises(CheckpointError, match="of a model with another scheme.*decoder.embed"):
        load_checkpoint(build_transducer(fewer), tmp_path / "quantized.pth")
    rows = {"embedding": {"weight": {"quantizer": "max", "bits": 4, "granularity": "row"}}}
    with pytest.raises(CheckpointError, match=r"another scheme.*\(1 here, 7 in the model\)"):
        load_checkpoint(build_transducer({**SCHEME, **rows}), tmp_path / "quantized.pth")


def test_clips_that_follow_from_the_weights_need_no_calibration(tmp_path):
    weights = {"linear": {"weight": SCHEME["linear"]["weight"]}}
    torch.save(build_transducer().state_dict(), tmp_path / "float.pth")
    load_checkpoint(build_transducer(weights), tmp_path / "float.pth")


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = QuantEmbedding(5, 4), QuantLinear(4, 5)
        self.decoder.weight = self.encoder.weight


def test_tied_tables_have_to_be_equal(tmp_path):
    state = Tied().state_dict()
    torch.save(state, tmp_path / "a.pth")
    load_checkpoint(Tied(), tmp_path / "a.pth")
    spoiled = torch.full((5, 4), torch.nan)
    names = {"decoder.weight": spoiled, "encoder.weight": spoiled.clone()}
    torch.save({**state, **names}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="2 tensors hold NaN"):
        load_checkpoint(Tied(), tmp_path / "a.pth")
    torch.save({**state, "decoder.weight": torch.zeros(5, 4)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="one tensor in the model and two in the file"):
        load_checkpoint(Tied(), tmp_path / "a.pth")


def test_initial_parameters_say_what_they_set(trained, tmp_path):
    state = trained["float"].state_dict()
    torch.save(state, tmp_path / "a.pth")
    model = build_transducer(SCHEME, seed=2)
    loaded = load_initial_parameters(model, f"{tmp_path}/a.pth:decoder:decoder:decoder.embed")
    assert "decoder.decoder.0.weight_hh_l0" in loaded and "decoder.embed.weight" not in loaded
    weights = model.state_dict()
    assert torch.equal(
        weights["decoder.decoder.0.bias_hh_l0"], state["decoder.decoder.0.bias_hh_l0"]
    )
    assert not torch.equal(weights["decoder.embed.weight"], state["decoder.embed.weight"])
    random = still_random(model, loaded)
    assert "decoder.embed.weight" in random and "encoder.enc.0.nbrnn.weight_ih_l0" in random
    assert not any("quantizers" in name or name in loaded for name in random)
    assert still_random(model, load_initial_parameters(model, f"{tmp_path}/a.pth")) == []


def test_initial_parameters_that_do_not_fit_are_passed_over_where_that_is_asked_for(
    trained, tmp_path, caplog
):
    state = {**trained["float"].state_dict(), "ctc.ctc_lo.bias": torch.ones(3)}
    torch.save(state, tmp_path / "a.pth")
    model = build_transducer(SCHEME)
    with pytest.raises(CheckpointError, match="1 of another shape.*ignore_init_mismatch"):
        load_initial_parameters(model, str(tmp_path / "a.pth"))
    loaded = load_initial_parameters(model, str(tmp_path / "a.pth"), ignore_mismatch=True)
    assert still_random(model, loaded) == ["ctc.ctc_lo.bias"]
    assert "passed over" in caplog.text


def test_a_tied_table_is_set_by_either_name(tmp_path):
    torch.save({"encoder.weight": torch.ones(5, 4)}, tmp_path / "a.pth")
    model = Tied()
    loaded = load_initial_parameters(model, str(tmp_path / "a.pth"))
    assert still_random(model, loaded) == ["decoder.bias"]
