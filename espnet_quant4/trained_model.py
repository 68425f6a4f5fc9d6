"""A trained model from the ``config.yaml`` and the checkpoint that ESPnet's training wrote."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from espnet_quant4.checkpoints import load_checkpoint
from espnet_quant4.packed_models import describe_packed
from espnet_quant4.text_files import read_yaml

# Choices that every version of ESPnet has saved, and that tell one task's configuration from
# another's.
_TELLING = ("encoder", "decoder", "lm")


class ConfigurationError(ValueError):
    """A ``config.yaml`` that is not of the task, or that no model can be built from."""


def load_trained_model(
    task: Any, config: str | Path, checkpoint: str | Path, device: str = "cpu"
) -> tuple[Any, Namespace]:
    """Build a model and load all of its parameters.

    Args:
        task: ESPnet's class of the task that trained it.
        config: ``config.yaml``.
        checkpoint: such as ``valid.loss.ave.pth``.
        device: where the model goes.

    Returns:
        The model, in training mode as ESPnet leaves it, and the options of its training.

    Raises:
        ConfigurationError: for a configuration of another task, or one that no model can be built
            from.
        CheckpointError: for a checkpoint that is not the model's; see `load_checkpoint`.
        TextFileError, OSError: for a configuration that cannot be read.
    """
    model, args = build_untrained_model(task, config)
    load_checkpoint(model, checkpoint, f"the model of {config}")
    return model.to(device), args


def build_untrained_model(task: Any, config: str | Path) -> tuple[Any, Namespace]:
    """Build the model of a ``config.yaml``; its parameters are random.

    Args:
        task: ESPnet's class of the task.
        config: ``config.yaml``.

    Raises:
        ConfigurationError, TextFileError, OSError: as `load_trained_model`.
    """
    import espnet_quant4.plugin  # its classes are needed whatever the switch says

    espnet_quant4.plugin.register()
    options = read_training_options(task, config)
    # How parameters begin does not matter, and a later ESPnet may not know the way.
    args = Namespace(**{**options, "init": None})
    if getattr(args, "use_adapter", False):
        raise ConfigurationError(
            f"{config}: use_adapter: true; models with adapters are not supported. Merge the "
            "adapter into the model first."
        )
    try:
        model = task.build_model(args)
    except OSError as error:
        raise ConfigurationError(
            f"{config}: the model needs a file that is not there: {error}. Run the command in the "
            "folder where the training ran."
        ) from error
    except (ValueError, ModuleNotFoundError):
        raise
    except Exception as error:
        # ESPnet checks options by assertions, by looking up keys and by the types of arguments.
        what = str(error).strip() or "no reason given"
        raise ConfigurationError(
            f"{config}: no model can be built from it: {type(error).__name__}: {what}"
        ) from error
    return model, args


def read_training_options(task: Any, config: str | Path) -> dict[str, Any]:
    """Return the options in a ``config.yaml``, which has to be of the task.

    Raises:
        ConfigurationError: for that of another task, which would fail anywhere, or not at all.
        TextFileError, OSError: for a file that cannot be read.
    """
    packed = describe_packed(config)
    if packed:
        raise ConfigurationError(f"{config}: {packed}")
    options = read_yaml(config)
    required = [key for key in task.get_parser().get_default("required") if key != "output_dir"]
    choices = {choice.name for choice in task.class_choices_list}
    wanted = [*required, *(name for name in _TELLING if name in choices)]
    missing = [key for key in wanted if not isinstance(options, dict) or key not in options]
    if missing:
        raise ConfigurationError(
            f"{config}: lacks {', '.join(missing)}, which {task.__name__} saves in config.yaml: "
            "this is of another task, or not what a training wrote. Give the config.yaml of the "
            "experiment, or the task that trained it."
        )
    found: dict[str, Any] = options
    return found
