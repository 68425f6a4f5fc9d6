"""A whole recognizer in one ``.int4`` file: weights, configuration, tokens, feature statistics."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from espnet_quant4.int4.sentencepiece_model import with_table, without_table
from espnet_quant4.int4.stored_model import (
    fill,
    read_config,
    read_model,
    with_statistics,
    write_model,
)

__all__ = ["BPE_MODEL", "load", "read_config", "save"]

BPE_MODEL = "bpemodel"

# What of a training's configuration builds the model and reads text; the rest is about training.
CHOICES = (
    "frontend", "specaug", "normalize", "preencoder", "encoder", "postencoder", "decoder", "model",
    "preprocessor", "ctc", "joint_net",
)  # fmt: skip
KEYS = (
    *CHOICES,
    *(f"{name}_conf" for name in CHOICES),
    "input_size",
    "token_type",
    "non_linguistic_symbols",
    "cleaner",
    "g2p",
    "use_preprocessor",
    "aux_ctc_tasks",
    "num_speakers",
)


def save(model: torch.nn.Module, train_config: Mapping[str, Any], path: str | Path) -> int:
    """Write a recognizer.

    Args:
        model: ESPnet's ASR model, quantized or converted.
        train_config: the training's ``config.yaml``.
        path: where to.

    Returns:
        The size of the file in bytes.

    Raises:
        ValueError: for a model that cannot be converted; see `espnet_quant4.int4.convert`.
    """
    config = {key: train_config[key] for key in KEYS if key in train_config}
    config["token_list"] = list(train_config["token_list"])
    others = {}
    bpemodel = train_config.get("bpemodel")
    if bpemodel and train_config.get("token_type") == "bpe":
        others[BPE_MODEL] = torch.frombuffer(
            bytearray(without_table(Path(bpemodel).read_bytes())), dtype=torch.uint8
        )
    return write_model(path, "asr", model, config, others, _build)


def load(path: str | Path, **options: Any) -> Any:
    """Read a recognizer.

    Args:
        path: of the file, which is all that is needed.
        options: of ESPnet's ``Speech2Text``, such as ``beam_size``; ``lm_file`` may be an INT4 file
            too, which needs no ``lm_train_config``.

    Returns:
        ESPnet's ``espnet2.bin.asr_inference.Speech2Text``: call it with a waveform.

    Raises:
        Int4FileError: for a file that cannot be read.
        ValueError: for a language model of other tokens.
    """
    from espnet2.bin.asr_inference import Speech2Text

    from espnet_quant4.int4.lm_file import fill_scorer, is_lm_file, read_lm, write_config

    stored = read_model(path, "asr")
    lm = None
    if options.get("lm_file") is not None and is_lm_file(options["lm_file"]):
        lm = read_lm(options["lm_file"], stored.config["token_list"])
    folder = tempfile.TemporaryDirectory(prefix="espnet_quant4_")
    prepared = _prepare(stored.config, stored.tensors, Path(folder.name))
    yaml_path = Path(folder.name, "config.yaml")
    yaml_path.write_text(yaml.safe_dump(prepared), encoding="utf-8")
    if lm is not None:
        options = {
            **options,
            "lm_train_config": write_config(lm, Path(folder.name)),
            "lm_file": None,
        }
    recognizer = Speech2Text(
        asr_train_config=yaml_path, asr_model_file=None, device="cpu", **options
    )
    fill(recognizer.asr_model, stored, others=(BPE_MODEL,))
    if lm is not None:
        fill_scorer(recognizer, lm)
    # Files that ESPnet reads when it first needs them live as long as the recognizer.
    recognizer.files = folder
    return recognizer


def _prepare(
    config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], folder: Path
) -> dict[str, Any]:
    """Return a configuration for ESPnet, with the files it names made from the tensors."""
    prepared = with_statistics(config, tensors, folder)
    conf = dict(prepared.get("model_conf") or {})
    if prepared.get("model") == "quant_espnet":
        # The loss is for training; its package need not be installed where the model is used.
        conf["transducer_loss"] = "torchaudio"
    prepared["model_conf"] = conf
    prepared["bpemodel"] = None
    if BPE_MODEL in tensors:
        model = folder / "bpe.model"
        model.write_bytes(with_table(tensors[BPE_MODEL].numpy().tobytes()))
        prepared["bpemodel"] = str(model)
    return {**_defaults(), **prepared}


def _defaults() -> dict[str, Any]:
    """Return ESPnet's defaults of what builds a model, for keys that the file lacks."""
    from espnet2.tasks.asr import ASRTask

    # Not get_default_config(), which reads the command line of whatever program this is.
    parser = ASRTask.get_parser()
    return {key: parser.get_default(key) for key in KEYS}


def _build(
    config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], folder: Path
) -> torch.nn.Module:
    import argparse

    from espnet2.tasks.asr import ASRTask

    return ASRTask.build_model(argparse.Namespace(**_prepare(config, tensors, folder)))
