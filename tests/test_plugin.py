"""What `espnet_quant4.plugin` does to ESPnet's modules, on stand-ins for them.

The stand-ins have ESPnet's own ClassChoices, so that what is added is what ESPnet looks up.
test_registration.py does the same with the real tasks.
"""

import argparse
import sys
from types import ModuleType
from typing import Any

import pytest
import yaml
from espnet2.train.class_choices import ClassChoices

from espnet_quant4 import hook, plugin
from espnet_quant4.hook import TARGETS
from espnet_quant4.plugin import Entry, register
from espnet_quant4.scheme import Scheme, SchemeError


class Base:
    def __init__(self, **conf: Any) -> None:
        self.conf = conf


class Encoder(Base): ...


class OwnEncoder(Base): ...


class Decoder(Base): ...


class Model(Base): ...


class Stranger: ...


ENTRIES = (
    Entry("encoder", "quant_e", f"{__name__}:Encoder"),
    Entry("decoder", "quant_d", f"{__name__}:Decoder"),
    Entry("model", "quant_m", f"{__name__}:Model"),
)


def choices(kind: str, default: str | None = None) -> ClassChoices:
    return ClassChoices(kind, {"own": OwnEncoder}, type_check=Base, default=default)


def task_module(name: str = "espnet2.tasks.asr") -> Any:
    """A module like ESPnet's; its build_model returns what it was given, as it was then."""
    module: Any = ModuleType(name)
    for kind in ("encoder", "decoder", "model"):
        setattr(module, f"{kind}_choices", choices(kind))

    class ASRTask:
        failure: Exception | None = None

        @classmethod
        def build_model(cls, args: argparse.Namespace) -> Any:
            """Build it."""
            if cls.failure is not None:
                raise cls.failure
            args.token_list = ["a"]  # ESPnet writes to args too
            return cls, yaml.safe_load(yaml.safe_dump(vars(args)))

    module.ASRTask = ASRTask
    return module


@pytest.fixture(autouse=True)
def entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plugin.ENTRIES, "ASRTask", ENTRIES)


def arguments(**values: Any) -> argparse.Namespace:
    defaults: dict[str, Any] = {
        "encoder": "quant_e",
        "encoder_conf": {},
        "decoder": "quant_d",
        "decoder_conf": {},
        "model": "quant_m",
        "model_conf": {},
        "joint_net_conf": None,
    }
    return argparse.Namespace(**{**defaults, **values})


def test_names_are_added_and_offered_by_parsers() -> None:
    module = task_module()
    register(module)
    assert module.encoder_choices.get_class("quant_e") is Encoder
    parser = argparse.ArgumentParser()
    module.decoder_choices.add_arguments(parser)
    assert parser.parse_args(["--decoder", "Quant_D"]).decoder == "quant_d"
    assert "quant_m" in module.model_choices.choices()


def test_twice_is_once() -> None:
    module = task_module()
    original = module.ASRTask.__dict__["build_model"].__func__
    for _ in range(3):
        register(module)
    assert module.encoder_choices.choices() == ("own", "quant_e", None)
    assert module.ASRTask.__dict__["build_model"].__func__.__wrapped__ is original
    assert module.ASRTask.build_model.__doc__ == "Build it."


def test_without_argument_all_imported_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TARGETS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    modules = [task_module(n) for n in ("espnet2.tasks.asr", "espnet3.systems.esp2_asr.task")]
    for module in modules:
        monkeypatch.setitem(sys.modules, module.__name__, module)
    register()
    assert [m.model_choices.get_class("quant_m") for m in modules] == [Model, Model]


def test_unknown_module() -> None:
    with pytest.raises(ValueError, match=r"'json'.*espnet2\.tasks\.asr.*espnet2\.tasks\.lm"):
        register(ModuleType("json"))


def no_choices(module: Any) -> None:
    del module.decoder_choices


def choices_without_classes(module: Any) -> None:
    module.decoder_choices = object()


def no_task(module: Any) -> None:
    del module.ASRTask


def plain_build_model(module: Any) -> None:
    module.ASRTask.build_model = lambda args: args


def no_build_model(module: Any) -> None:
    del module.ASRTask.build_model


def other_base(module: Any) -> None:
    module.model_choices.base_type = Stranger


def taken(module: Any) -> None:
    module.model_choices.classes["quant_m"] = OwnEncoder


@pytest.mark.parametrize(
    "change, error, words",
    [
        (no_choices, RuntimeError, "espnet2.tasks.asr has no 'decoder_choices'"),
        (choices_without_classes, RuntimeError, "has no 'classes'"),
        (no_task, RuntimeError, "espnet2.tasks.asr has no 'ASRTask'"),
        (plain_build_model, RuntimeError, "build_model is not a class method"),
        (no_build_model, RuntimeError, "build_model is not a class method"),
        (other_base, TypeError, "'quant_m' is .*Model, which is not a subclass of .*Stranger"),
        (taken, ValueError, "'quant_m' is already .*OwnEncoder among the model choices"),
    ],
)
def test_an_espnet_that_changed_is_left_as_it_is(change: Any, error: Any, words: str) -> None:
    module = task_module()
    change(module)
    before = {kind: dict(getattr(module, f"{kind}_choices").classes) for kind in ("encoder",)}
    build = getattr(getattr(module, "ASRTask", None), "build_model", None)
    with pytest.raises(error, match=words):
        register(module)
    assert before == {"encoder": module.encoder_choices.classes}
    assert getattr(getattr(module, "ASRTask", None), "build_model", None) == build
    with pytest.warns(RuntimeWarning, match=rf"(?s)could not register.*{error.__name__}.*{words}"):
        assert not hook.try_to_register(module)


def test_subclass_of_the_task_builds_with_itself() -> None:
    module = task_module()
    register(module)

    class MyTask(module.ASRTask):  # type: ignore[misc, name-defined]
        pass

    assert MyTask.build_model(arguments())[0] is MyTask


def test_scheme_becomes_part_of_the_configuration() -> None:
    module = task_module()
    register(module)
    given = {"scheme": "naive", "hidden_size": 3}
    args = arguments(encoder_conf=given, model_conf={"scheme": Scheme.load("tailored").to_dict()})
    seen = module.ASRTask.build_model(args)[1]
    assert args.encoder_conf == {"scheme": Scheme.load("naive").to_dict(), "hidden_size": 3}
    assert args.model_conf == {"scheme": Scheme.load("tailored").to_dict()}
    assert seen == vars(args)
    assert given == {"scheme": "naive", "hidden_size": 3}  # it may be a parser's default
    assert module.ASRTask.build_model(arguments(**seen))[1] == seen


def test_schemes_of_other_classes_are_their_own_business() -> None:
    module = task_module()
    register(module)
    args = arguments(encoder="own", encoder_conf={"scheme": "of colours"})
    module.ASRTask.build_model(args)
    assert args.encoder_conf == {"scheme": "of colours"}


def test_scheme_of_a_users_subclass() -> None:
    module = task_module()
    register(module)
    module.encoder_choices.classes["mine"] = type("Mine", (Encoder,), {})
    args = arguments(encoder="mine", encoder_conf={"scheme": "naive"})
    module.ASRTask.build_model(args)
    assert args.encoder_conf == {"scheme": Scheme.load("naive").to_dict()}


@pytest.mark.parametrize("conf", [{}, {"scheme": None}])
def test_no_scheme(conf: dict[str, Any]) -> None:
    module = task_module()
    register(module)
    args = arguments(encoder_conf=conf)
    module.ASRTask.build_model(args)
    assert args.encoder_conf == conf


def test_wrong_scheme_names_the_configuration_key() -> None:
    module = task_module()
    register(module)
    with pytest.raises(SchemeError, match=r"decoder_conf: scheme: .*lstn"):
        module.ASRTask.build_model(arguments(decoder_conf={"scheme": {"lstn": {}}}))


def test_joint_net_conf_reaches_the_model_and_no_more() -> None:
    module = task_module()
    register(module)
    args = arguments(joint_net_conf={"joint_space_size": 5}, model_conf={"ctc_weight": 0.1})
    seen = module.ASRTask.build_model(args)[1]
    assert seen["model_conf"] == {"ctc_weight": 0.1, "joint_network_conf": {"joint_space_size": 5}}
    # What is saved loads to the same model.
    assert args.model_conf == {"ctc_weight": 0.1}
    assert args.joint_net_conf == {"joint_space_size": 5}
    assert args.token_list == ["a"]
    assert module.ASRTask.build_model(args)[1] == seen


def test_arguments_are_restored_when_building_fails() -> None:
    module = task_module()
    register(module)
    module.ASRTask.failure = KeyError("size")
    args = arguments(joint_net_conf={"joint_space_size": 5})
    with pytest.raises(KeyError):
        module.ASRTask.build_model(args)
    assert args.model_conf == {}


@pytest.mark.parametrize("top", [None, {}, {"joint_space_size": 7}])
def test_explicit_joint_network_conf_stays(top: dict[str, Any] | None) -> None:
    module = task_module()
    register(module)
    conf = {"joint_network_conf": {"joint_space_size": 7}}
    args = arguments(joint_net_conf=top, model_conf=conf)
    assert module.ASRTask.build_model(args)[1]["model_conf"] == conf


def test_joint_network_configured_twice() -> None:
    module = task_module()
    register(module)
    args = arguments(
        joint_net_conf={"joint_space_size": 5},
        model_conf={"joint_network_conf": {"joint_space_size": 7}},
    )
    with pytest.raises(ValueError, match=r"joint_net_conf is .*5.*joint_network_conf is .*7"):
        module.ASRTask.build_model(args)


def test_joint_net_conf_of_espnets_decoder_is_espnets() -> None:
    module = task_module()
    register(module)
    args = arguments(decoder="own", joint_net_conf={"joint_space_size": 5})
    assert module.ASRTask.build_model(args)[1]["model_conf"] == {}


@pytest.mark.parametrize("model", ["own", None])
def test_decoder_without_its_model(model: str | None) -> None:
    module = task_module()
    register(module)
    with pytest.raises(ValueError, match=r"needs model: quant_espnet, but the model is"):
        module.ASRTask.build_model(arguments(model=model))
    args = arguments()
    del args.model  # a configuration from before ESPnet had the choice
    with pytest.raises(ValueError, match=r"needs model: quant_espnet, but the model is espnet"):
        module.ASRTask.build_model(args)


def config_writer() -> Any:
    module: Any = ModuleType(plugin.CONFIG_WRITER)
    module.written = []
    module.get_task_class = lambda path: sys.modules[path.rpartition(".")[0]].ASRTask
    module.save_espnet_config = lambda task, config, folder: module.written.append(config)
    return module


def test_configuration_that_espnet3_saves_has_the_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_module()
    task.ASRTask.__module__ = task.__name__
    monkeypatch.setitem(sys.modules, task.__name__, task)
    register(task)
    module = config_writer()
    register(module)
    register(module)
    config = {"model": {"encoder": "quant_e", "encoder_conf": {"scheme": "naive"}}, "seed": 1}
    module.save_espnet_config("espnet2.tasks.asr.ASRTask", config, "exp")
    (written,) = module.written
    assert written["model"]["encoder_conf"] == {"scheme": Scheme.load("naive").to_dict()}
    assert written["seed"] == 1
    assert config["model"]["encoder_conf"] == {"scheme": "naive"}
