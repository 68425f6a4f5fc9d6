"""The plugin's names in the real ESPnet: parsers, saved configurations, child processes, ESPnet3.

Importing ESPnet's tasks takes 10 seconds and more, so what can run in this process does, and the
tests that start another one are few and marked slow.
"""

import argparse
import io
import os
import sys
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from espnet2.tasks.asr import ASRTask
from espnet2.tasks.lm import LMTask
from espnet2.utils.yaml_no_alias_safe_dump import yaml_no_alias_safe_dump
from interpreter import Interpreter, package_folder

from espnet_quant4 import plugin
from espnet_quant4.scheme import Scheme

TOKENS = ["<blank>", "<unk>", "a", "b", "<sos/eos>"]
SCHEME = """\
lstm:
  weight_ih: {quantizer: sawb+, bits: 4, granularity: gate}
  hidden: {quantizer: fix, bits: 4}
"""
ASR: dict[str, Any] = {
    "token_list": TOKENS,
    "token_type": "char",
    "input_size": 6,
    "init": None,
    "encoder": "quant_rnn",
    "encoder_conf": {"num_layers": 1, "hidden_size": 4, "output_size": 5, "subsample": [1]},
    "decoder": "quant_transducer",
    "decoder_conf": {"hidden_size": 4},
    "joint_net_conf": {"joint_space_size": 3},
    "model": "quant_espnet",
    "model_conf": {"ctc_weight": 0.3},
}
LM: dict[str, Any] = {
    "token_list": TOKENS,
    "lm": "quant_seq_rnn",
    "lm_conf": {"unit": 4, "nlayers": 1},
}
CASES = [(ASRTask, ASR, "model_conf"), (LMTask, LM, "lm_conf")]


@pytest.fixture
def scheme_file(tmp_path: Path) -> Path:
    path = tmp_path / "my scheme.yaml"
    path.write_text(SCHEME)
    return path


def with_scheme(config: dict[str, Any], key: str, scheme: Any) -> dict[str, Any]:
    return {**config, key: {**config[key], "scheme": scheme}}


def parse(task: Any, config: dict[str, Any], folder: Path) -> argparse.Namespace:
    """What `asr_train --config FILE` reads."""
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(config))
    return task.get_parser().parse_args(["--config", str(path), "--output_dir", str(folder)])


def sizes(model: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict().items()}


def plain(config: Any) -> Any:
    """As YAML reads it: lists for tuples."""
    return yaml.safe_load(yaml_no_alias_safe_dump(config))


@pytest.mark.parametrize("task", ["ASRTask", "LMTask"])
def test_every_name_is_offered(task: str) -> None:
    parser = {"ASRTask": ASRTask, "LMTask": LMTask}[task].get_parser()
    actions = {action.dest: action for action in parser._actions}
    for entry in plugin.ENTRIES[task]:
        assert entry.name == entry.name.lower()
        assert entry.name in actions[entry.kind].choices
        module = sys.modules[f"espnet2.tasks.{'asr' if task == 'ASRTask' else 'lm'}"]
        assert getattr(module, f"{entry.kind}_choices").get_class(entry.name) is entry.load()


@pytest.mark.parametrize("task, config, key", CASES)
def test_saved_configuration_needs_no_other_file(
    task: Any, config: dict[str, Any], key: str, scheme_file: Path, tmp_path: Path
) -> None:
    args = parse(task, with_scheme(config, key, str(scheme_file)), tmp_path)
    model = task.build_model(args)
    # What AbsTask.main_worker does after building the model.
    saved = tmp_path / "config.yaml"
    saved.write_text(yaml_no_alias_safe_dump(vars(args), indent=4, sort_keys=False))
    content = yaml.safe_load(saved.read_text())
    assert content[key]["scheme"] == Scheme.load(str(scheme_file)).to_dict()
    assert "joint_network_conf" not in content["model_conf"]

    scheme_file.unlink()
    loaded, loaded_args = task.build_model_from_file(saved)
    assert sizes(loaded) == sizes(model)
    assert plain(vars(loaded_args)) == content
    assert any("quantizers" in name for name in sizes(model))


@pytest.mark.parametrize("task, config, key", CASES)
def test_printed_configuration_loads(
    task: Any,
    config: dict[str, Any],
    key: str,
    tmp_path: Path,
    scheme_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = with_scheme(config, key, str(scheme_file))
    wanted = sizes(task.build_model(parse(task, config, tmp_path)))
    # print_config reads sys.argv.
    monkeypatch.setattr(sys, "argv", ["train", "--config", str(tmp_path / "train.yaml")])
    printed = io.StringIO()
    task.print_config(printed)
    content = yaml.safe_load(printed.getvalue())
    assert content[key]["scheme"] == str(scheme_file)
    assert sizes(task.build_model(parse(task, content, tmp_path))) == wanted


def test_joint_network_has_the_size_asked_for(tmp_path: Path) -> None:
    model = ASRTask.build_model(parse(ASRTask, ASR, tmp_path))
    assert model.joint_network.lin_enc.out_features == 3


def test_quantized_decoder_with_espnets_model(tmp_path: Path) -> None:
    args = parse(ASRTask, {**ASR, "model": "espnet"}, tmp_path)
    with pytest.raises(ValueError, match=r'Write "model: quant_espnet" in the configuration'):
        ASRTask.build_model(args)


def test_espnets_own_classes_are_built_as_before(tmp_path: Path) -> None:
    config = {
        **ASR,
        "encoder": "rnn",
        "decoder": "rnn",
        "decoder_conf": {"hidden_size": 4},
        "model": "espnet",
    }
    model = ASRTask.build_model(parse(ASRTask, config, tmp_path))
    assert type(model).__module__ == "espnet2.asr.espnet_model"
    assert not model.use_transducer_decoder


@pytest.fixture
def espnet3() -> Any:
    """ESPnet3's way to a model."""
    if int(metadata.version("espnet").split(".")[0]) < 202611:
        pytest.skip("this ESPnet comes without ESPnet3")
    return import_module("espnet3.utils.task_utils")


ESPNET3_TASK = "espnet3.systems.esp2_asr.task.ASRTask"


def test_espnet3_builds_by_task_and_name(espnet3: Any, scheme_file: Path, tmp_path: Path) -> None:
    config = with_scheme(ASR, "model_conf", str(scheme_file))
    model = espnet3.get_espnet_model(ESPNET3_TASK, config)
    assert sizes(model) == sizes(ASRTask.build_model(parse(ASRTask, config, tmp_path)))


def test_configuration_saved_by_espnet3_needs_no_other_file(
    espnet3: Any, scheme_file: Path, tmp_path: Path
) -> None:
    from omegaconf import OmegaConf

    model_config = with_scheme(ASR, "model_conf", "${where}")
    config = OmegaConf.create(
        {"task": ESPNET3_TASK, "where": str(scheme_file), "model": model_config, "seed": 3}
    )
    espnet3.save_espnet_config(ESPNET3_TASK, config, str(tmp_path))
    scheme_file.unlink()
    content = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert content["model_conf"]["scheme"]["lstm"]["hidden"]["quantizer"] == "fix"
    assert content["seed"] == 3
    # ESPnet3's inference reads this file with ESPnet2's Speech2Text.
    model, _ = ASRTask.build_model_from_file(tmp_path / "config.yaml")
    assert any("quantizers" in name for name in sizes(model))


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Interpreter:
    """An environment where the plugin is installed and no code imports it."""
    return Interpreter(tmp_path_factory.mktemp("venv"), [package_folder()], outer=True)


@pytest.mark.slow
def test_training_command_knows_the_names(python: Interpreter, tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(ASR))
    done = python.run("-m", "espnet2.bin.asr_train", "--config", str(path), "--print_config")
    assert "could not register" not in done.stderr
    assert yaml.safe_load(done.stdout)["decoder"] == "quant_transducer"


CHILD = """\
import multiprocessing
import sys

def child(queue):
    from espnet2.tasks.asr import ASRTask, encoder_choices, model_choices
    queue.put((encoder_choices.get_class("quant_rnn").__name__, "quant_espnet" in
               model_choices.choices()))

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    print(queue.get(timeout=240))
    process.join()
    assert "espnet2" not in sys.modules
"""


@pytest.mark.slow
def test_spawned_process_knows_the_names(python: Interpreter, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(CHILD)
    assert python.run(str(script)).stdout.splitlines()[-1] == "('QuantRNNEncoder', True)"


@pytest.mark.slow
def test_switched_off_espnet_is_as_without_the_plugin(python: Interpreter) -> None:
    code = "from espnet2.tasks.asr import encoder_choices as c, ASRTask; import sys; "
    code += "print([n for n in c.choices() if n and 'quant' in n], 'espnet_quant4.plugin' in "
    code += "sys.modules, hasattr(ASRTask.build_model, '_espnet_quant4_wrapper'))"
    done = python.run("-c", code, ESPNET_QUANT4_DISABLE="1")
    assert done.stdout.splitlines()[-1] == "[] False False"
    assert os.environ.get("ESPNET_QUANT4_DISABLE") is None
