"""Makes the plugin's classes selectable by name in ESPnet's own configuration files.

`register` is the only place that changes anything of ESPnet's.  It adds the names in `ENTRIES` to
the task's `ClassChoices`, and it wraps these functions, once each:

- `ASRTask.build_model` and `LMTask.build_model`, so that quantization schemes become part of the
  saved configuration and `joint_net_conf` reaches a model whose joint network ESPnet does not
  build (it builds one for `decoder: transducer` only);
- ESPnet3's `save_espnet_config`, which writes `config.yaml` before any model is built;
- `AbsTask.build_optimizers`, where a training starts: one that would go on with another scheme is
  refused, and the log says what is quantized;
- `Trainer.validate_one_epoch`, for what quantization costs each tensor to be measured and logged;
- `yaml_no_alias_safe_dump` in the modules that write `config.yaml`, which then says whose the names
  in `ENTRIES` are.

`espnet_quant4.hook` calls it when ESPnet imports one of these modules.
"""

from __future__ import annotations

import argparse
import copy
import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module, metadata
from threading import Lock
from types import ModuleType
from typing import Any

from espnet_quant4.hook import TARGETS

_MARK = "_espnet_quant4_wrapper"
_lock = Lock()


@dataclass(frozen=True)
class Entry:
    """One name that a configuration may use.

    Attributes:
        kind: configuration key, e.g. "encoder"; ESPnet's variable is `<kind>_choices`.
        name: value of that key, lower case (ESPnet looks names up as written, after a lower-case
            membership test).
        target: "module:class", imported when ESPnet's task is.
    """

    kind: str
    name: str
    target: str

    def load(self) -> type:
        """Import and return the class."""
        module, _, name = self.target.partition(":")
        return getattr(import_module(module), name)


ENTRIES: dict[str, tuple[Entry, ...]] = {
    "ASRTask": (
        Entry("encoder", "quant_rnn", "espnet_quant4.asr.encoder.rnn_encoder:QuantRNNEncoder"),
        Entry(
            "encoder",
            "quant_vgg_rnn",
            "espnet_quant4.asr.encoder.vgg_rnn_encoder:QuantVGGRNNEncoder",
        ),
        Entry(
            "decoder",
            "quant_transducer",
            "espnet_quant4.asr.decoder.transducer_decoder:QuantTransducerDecoder",
        ),
        Entry(
            "preencoder",
            "frame_context",
            "espnet_quant4.asr.preencoder.frame_context:FrameContext",
        ),
        Entry("model", "quant_espnet", "espnet_quant4.asr.espnet_model:QuantESPnetASRModel"),
    ),
    "LMTask": (
        Entry("lm", "quant_seq_rnn", "espnet_quant4.asr.lm.seq_rnn_lm:QuantSequentialRNNLM"),
    ),
}

# Which of the hooked modules holds which task class; the rest is ESPnet3's configuration writer.
TASKS = {
    "espnet2.tasks.asr": "ASRTask",
    "espnet3.systems.esp2_asr.task": "ASRTask",
    "espnet2.tasks.lm": "LMTask",
}
CONFIG_WRITER = "espnet3.utils.task_utils"
TRAINING_START = "espnet2.tasks.abs_task"
TRAINER = "espnet2.train.trainer"


def register(module: ModuleType | None = None) -> None:
    """Register with one of ESPnet's modules, or with all of them that are imported.

    Safe to call any number of times, also after the module was reloaded.

    Args:
        module: one of the modules named in `espnet_quant4.hook.TARGETS`; None for those of them
            that are in `sys.modules`.

    Raises:
        ValueError: `module` is none of the targets, or a name is taken by another class.
        TypeError: a class is not of the type that ESPnet demands for its choice.
        RuntimeError: ESPnet's module is not as this version of the plugin knows it.
    """
    if module is None:
        for name in [name for name in TARGETS if name in sys.modules]:
            register(sys.modules[name])
    elif module.__name__ in TASKS:
        _register_task(module, TASKS[module.__name__])
    elif module.__name__ == CONFIG_WRITER:
        with _lock:
            _wrap_config_writer(module)
            _wrap_dump(module)
    elif module.__name__ == TRAINING_START:
        with _lock:
            _wrap_training_start(module)
            _wrap_dump(module)
    elif module.__name__ == TRAINER:
        with _lock:
            _wrap_validation(module)
    else:
        raise ValueError(
            f"cannot register with {module.__name__!r}: choose one of {sorted(TARGETS)}"
        )


def _register_task(module: ModuleType, task_name: str) -> None:
    # Everything that can fail comes first, so that a failure leaves ESPnet as it was.
    task = _attribute(module, task_name)
    _class_method_of(task, "build_model")
    found = [(_choices(module, e.kind), e.name, e.load()) for e in ENTRIES[task_name]]
    with _lock:
        for choices, name, klass in found:
            _check(choices, name, klass)
        for choices, name, klass in found:
            choices.classes[name] = klass
        _wrap_build_model(module, task)


def _attribute(owner: Any, name: str) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError:
        where = getattr(owner, "__name__", repr(owner))
        raise RuntimeError(
            f"{where} has no {name!r}. This ESPnet ({_espnet_version()}) differs from those that "
            "espnet_quant4 knows (202511 and 202611), or the module is still being imported"
        ) from None


def _espnet_version() -> str:
    try:
        return metadata.version("espnet")
    except metadata.PackageNotFoundError:  # a checkout that is only on the module path
        return "unknown version"


def _choices(module: ModuleType, kind: str) -> Any:
    choices = _attribute(module, f"{kind}_choices")
    for name in ("classes", "base_type"):
        _attribute(choices, name)
    return choices


def _check(choices: Any, name: str, klass: type) -> None:
    base = choices.base_type
    if base is not None and not issubclass(klass, base):
        raise TypeError(
            f"{name!r} is {klass.__module__}.{klass.__qualname__}, which is not a subclass of "
            f"{base.__module__}.{base.__qualname__}"
        )
    other = choices.classes.get(name)
    # Not `is`: a reload of the plugin's module leaves an equal class under the name.
    same = (klass.__module__, klass.__qualname__)
    if other is not None and (other.__module__, other.__qualname__) != same:
        raise ValueError(
            f"{name!r} is already {other.__module__}.{other.__qualname__} among the "
            f"{choices.name} choices"
        )


def _class_method_of(owner: type, name: str) -> Callable[..., Any]:
    method = owner.__dict__.get(name)
    if not isinstance(method, classmethod):
        raise RuntimeError(
            f"{owner.__module__}.{owner.__qualname__}.{name} is not a class method. This "
            f"ESPnet ({_espnet_version()}) differs from those that espnet_quant4 knows"
        )
    function: Callable[..., Any] = method.__func__
    return _original(function)


def _original(function: Any) -> Callable[..., Any]:
    """Take what was wrapped before out again: wrapping the wrapper would stack up."""
    found: Callable[..., Any] = function.__wrapped__ if hasattr(function, _MARK) else function
    return found


def _wrap_build_model(module: ModuleType, task: Any) -> None:
    original = _class_method_of(task, "build_model")

    @functools.wraps(original)
    def build_model(cls: Any, args: argparse.Namespace) -> Any:
        _resolve_schemes(module, args)
        with _joint_network_conf(module, args):
            return original(cls, args)

    setattr(build_model, _MARK, True)
    task.build_model = classmethod(build_model)


def _wrap_config_writer(module: ModuleType) -> None:
    original = _original(_attribute(module, "save_espnet_config"))
    task_class = _attribute(module, "get_task_class")

    @functools.wraps(original)
    def save_espnet_config(task: str, config: Any, output_dir: str) -> None:
        task_module = sys.modules.get(task_class(task).__module__)
        if task_module is not None and task_module.__name__ in TASKS and config.get("model"):
            config = _plain_copy(config)
            args = argparse.Namespace(**config["model"])
            _resolve_schemes(task_module, args)
            config["model"] = vars(args)
        original(task, config, output_dir)

    setattr(save_espnet_config, _MARK, True)
    module.save_espnet_config = save_espnet_config  # type: ignore[attr-defined]


def _wrap_training_start(module: ModuleType) -> None:
    task = _attribute(module, "AbsTask")
    original = _class_method_of(task, "build_optimizers")

    @functools.wraps(original)
    def build_optimizers(cls: Any, args: argparse.Namespace, model: Any) -> Any:
        from espnet_quant4.training import before_training

        # Before config.yaml is written: a training that is refused must not change its folder.
        before_training(model, args)
        return original(cls, args, model)

    setattr(build_optimizers, _MARK, True)
    task.build_optimizers = classmethod(build_optimizers)


def _wrap_validation(module: ModuleType) -> None:
    trainer = _attribute(module, "Trainer")
    original = _class_method_of(trainer, "validate_one_epoch")

    @functools.wraps(original)
    def validate_one_epoch(
        cls: Any, model: Any, iterator: Any, reporter: Any, options: Any, distributed_option: Any
    ) -> None:
        from espnet_quant4.training import watched_validation

        is_first = not distributed_option.distributed or distributed_option.dist_rank == 0
        with watched_validation(model, reporter, options, is_first):
            original(cls, model, iterator, reporter, options, distributed_option)

    setattr(validate_one_epoch, _MARK, True)
    trainer.validate_one_epoch = classmethod(validate_one_epoch)


def _wrap_dump(module: Any) -> None:
    # A comment is not worth a failure where another version of ESPnet writes in another way.
    if not hasattr(module, "yaml_no_alias_safe_dump"):
        return
    original = _original(module.yaml_no_alias_safe_dump)

    @functools.wraps(original)
    def yaml_no_alias_safe_dump(data: Any, stream: Any = None, **options: Any) -> Any:
        hint = _hint_for(data)
        if stream is None:
            return hint + original(data, **options)
        stream.write(hint)
        return original(data, stream, **options)

    setattr(yaml_no_alias_safe_dump, _MARK, True)
    module.yaml_no_alias_safe_dump = yaml_no_alias_safe_dump


def _hint_for(config: Any) -> str:
    """Return a YAML comment for a configuration that names one of the plugin's classes, else ""."""
    from espnet_quant4.training import HINT

    ours = {(entry.kind, entry.name) for entries in ENTRIES.values() for entry in entries}
    given = config.items() if isinstance(config, dict) else ()
    return HINT if any(isinstance(v, str) and (k, v.lower()) in ours for k, v in given) else ""


def _plain_copy(config: Any) -> dict[str, Any]:
    from omegaconf import OmegaConf  # ESPnet3 depends on it

    if OmegaConf.is_config(config):
        return OmegaConf.to_container(config, resolve=True)
    return copy.deepcopy(dict(config))


def _entries(module: ModuleType, kinds: Iterable[str] = ()) -> Iterator[Entry]:
    for entry in ENTRIES[TASKS[module.__name__]]:
        if not kinds or entry.kind in kinds:
            yield entry


def _selected(module: ModuleType, args: argparse.Namespace, kind: str) -> type | None:
    """The class that `args` names for `kind`; None if it names none or an unknown one."""
    name = getattr(args, kind, None)
    if not isinstance(name, str):
        return None
    classes: dict[str, type] = _choices(module, kind).classes
    return classes.get(name.lower())


def _is_ours(module: ModuleType, args: argparse.Namespace, kind: str) -> bool:
    """Whether `args` selects one of the plugin's classes for `kind`, or a user's subclass of one.

    ESPnet's own classes, and other plugins', may use the word `scheme` for something else.
    """
    selected = _selected(module, args, kind)
    classes = _choices(module, kind).classes
    ours = tuple(classes[entry.name] for entry in _entries(module, (kind,)))
    return selected is not None and issubclass(selected, ours)


def _resolve_schemes(module: ModuleType, args: argparse.Namespace) -> None:
    """Replace each `scheme` in `args` by its content, for `config.yaml` is written from `args`.

    A mapping is validated and stays as it is, so that a saved configuration loads unchanged.
    """
    from espnet_quant4.scheme import with_scheme_content

    for kind in dict.fromkeys(entry.kind for entry in _entries(module)):
        key = f"{kind}_conf"
        conf = getattr(args, key, None)
        if not isinstance(conf, dict) or conf.get("scheme") is None:
            continue
        if _is_ours(module, args, kind):
            setattr(args, key, with_scheme_content(conf, key))


@contextmanager
def _joint_network_conf(module: ModuleType, args: argparse.Namespace) -> Iterator[None]:
    """Hand `joint_net_conf` to the model, which builds the joint network of `quant_transducer`.

    Only while the model is built: `args` is saved afterwards and has to load to the same model.

    Raises:
        ValueError: the model cannot build a joint network, or it is configured in two ways.
    """
    if not (hasattr(args, "decoder") and _is_ours(module, args, "decoder")):
        yield
        return
    if not _is_ours(module, args, "model"):
        raise ValueError(
            f"decoder: {args.decoder} needs model: quant_espnet, but the model is "
            f"{getattr(args, 'model', None) or 'espnet'}: ESPnet builds a joint network for its "
            'own decoder only. Write "model: quant_espnet" in the configuration, or '
            '"--model quant_espnet" on the command line.'
        )
    model_conf = args.model_conf or {}
    top, own = getattr(args, "joint_net_conf", None), model_conf.get("joint_network_conf")
    if top and own is not None and top != own:
        raise ValueError(
            f"the joint network is configured twice: joint_net_conf is {top} and "
            f"model_conf.joint_network_conf is {own}. Keep one of them."
        )
    if not top or own is not None:
        yield
        return
    saved = args.model_conf
    args.model_conf = {**model_conf, "joint_network_conf": dict(top)}
    try:
        yield
    finally:
        args.model_conf = saved
