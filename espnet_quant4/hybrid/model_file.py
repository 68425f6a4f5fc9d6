"""A whole acoustic model in one ``.int4`` file: weights, configuration, feature statistics, prior."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espnet_quant4.int4.file_content import broken
from espnet_quant4.int4.scratch_files import ScratchFiles
from espnet_quant4.int4.stored_model import (
    building,
    fill,
    read_model,
    with_statistics,
    write_model,
)

LOG_PRIOR = "log_prior"

# What of a training's configuration builds the model and reads speech; the rest is about training.
CHOICES = ("frontend", "specaug", "normalize", "preencoder", "encoder", "model")
KEYS = (
    *CHOICES,
    *(f"{name}_conf" for name in CHOICES),
    "num_pdfs",
    "input_size",
    "use_preprocessor",
    "speech_volume_normalize",
    "rir_scp",
    "rir_apply_prob",
    "noise_scp",
    "noise_apply_prob",
    "noise_db_range",
)
# Keys of model_conf that are about training only; they may name files.
TRAINING_KEYS = ("criterion", "lfmmi_conf", "ce_weight", "chunk_conf", "label_smoothing")


def save(
    model: torch.nn.Module,
    train_config: Mapping[str, Any],
    path: str | Path,
    log_prior: np.ndarray | None = None,
) -> int:
    """Write an acoustic model.

    Args:
        model: `ESPnetHybridModel`, quantized or converted.
        train_config: the training's ``config.yaml``.
        path: where to.
        log_prior: ``(num_pdfs,)``, to be subtracted where none is given when the file is used.

    Returns:
        The size of the file in bytes.

    Raises:
        ValueError: for a model that cannot be converted, and for a prior of another size.
    """
    config = {key: train_config[key] for key in KEYS if key in train_config}
    config["model_conf"] = {
        key: value
        for key, value in (config.get("model_conf") or {}).items()
        if key not in TRAINING_KEYS
    }
    config.update(rir_scp=None, noise_scp=None)
    others = {}
    if log_prior is not None:
        if len(log_prior) != config["num_pdfs"]:
            raise ValueError(
                f"the log prior has {len(log_prior)} values and the model {config['num_pdfs']} "
                "outputs. Take the prior of the alignment that the model was trained on."
            )
        others[LOG_PRIOR] = torch.from_numpy(np.asarray(log_prior, dtype=np.float32).copy())
    return write_model(path, "hybrid", model, config, others, _build)


def load(path: str | Path) -> tuple[torch.nn.Module, argparse.Namespace, np.ndarray | None]:
    """Read an acoustic model.

    Args:
        path: of the file, which is all that is needed.

    Returns:
        The model, in evaluation mode; the arguments of the task that built it; the log prior
        ``(num_pdfs,)`` float32 that came with it, or None.

    Raises:
        Int4FileError: for a file that cannot be read.
    """
    from espnet_quant4.hybrid.task import HybridTask

    stored = read_model(path, "hybrid")
    with building(stored), ScratchFiles() as files:
        args = _arguments(stored.config, stored.tensors, files)
        model = HybridTask.build_model(args)
    fill(model, stored, others=(LOG_PRIOR,))
    prior = stored.tensors.get(LOG_PRIOR)
    if prior is not None and (
        prior.dtype != torch.float32 or tuple(prior.shape) != (model.num_pdfs,)
    ):
        raise broken(
            stored.path,
            f"{LOG_PRIOR} is {prior.dtype} of shape {tuple(prior.shape)}; valid is float32 of shape "
            f"({model.num_pdfs},)",
        )
    return model.eval(), args, None if prior is None else prior.numpy()


def _build(
    config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], files: ScratchFiles
) -> torch.nn.Module:
    from espnet_quant4.hybrid.task import HybridTask

    model: torch.nn.Module = HybridTask.build_model(_arguments(config, tensors, files))
    return model


def _arguments(
    config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], files: ScratchFiles
) -> argparse.Namespace:
    from espnet_quant4.hybrid.task import HybridTask

    # Not get_default_config(), which reads the command line of whatever program this is.
    parser = HybridTask.get_parser()
    defaults = {key: parser.get_default(key) for key in KEYS}
    return argparse.Namespace(**{**defaults, **with_statistics(config, tensors, files)})
