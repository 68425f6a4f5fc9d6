"""A whole recognizer in one ``.int4`` file: weights, configuration, tokens, feature statistics."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import yaml

from espnet_quant4 import hook
from espnet_quant4.int4.file_content import broken
from espnet_quant4.int4.scratch_files import ScratchFiles
from espnet_quant4.int4.sentencepiece_model import with_table, without_table
from espnet_quant4.int4.stored_model import (
    StoredModel,
    allocation_limit,
    building,
    fill,
    read_model,
    with_statistics,
    write_model,
)

__all__ = ["BPE_MODEL", "DTYPES", "load", "save"]

BPE_MODEL = "bpemodel"

#: What the float parts of a recognizer may compute in; codes are codes in all of them.
DTYPES = ("float32", "bfloat16", "float64")

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


def load(
    path: str | Path, *, device: str | torch.device = "cpu", dtype: str = "float32", **options: Any
) -> Any:
    """Read a recognizer.

    Args:
        path: of the file, which is all that is needed; it may be changed or deleted afterwards.
        device: ``cpu``, which is where INT4 kernels run.
        dtype: of what is in float, one of `DTYPES`.
        options: of ESPnet's ``Speech2Text``, such as ``beam_size``; ``lm_file`` may be an INT4 file
            too, which needs no ``lm_train_config``.

    Returns:
        ESPnet's ``espnet2.bin.asr_inference.Speech2Text``: call it with a waveform. It can be copied
        and pickled.

    Raises:
        Int4FileError: for a file that cannot be read.
        ValueError: for a device or dtype that is not valid, and for a language model of other tokens.
    """
    from espnet_quant4.int4.lm_file import fill_scorer, is_lm_file, read_lm

    _check_place(device, dtype)
    stored = read_model(path, "asr")
    lm = None
    if options.get("lm_file") is not None and is_lm_file(options["lm_file"]):
        lm = read_lm(options.pop("lm_file"), stored.config["token_list"])
    # Where the plugin is switched off it is so for ESPnet's own programs; who loads such a file asks
    # for its classes.
    for task in ("asr", "lm"):
        hook.try_to_register(import_module(f"espnet2.tasks.{task}"))
    recognizer = _recognizer(stored, lm, dtype, options)
    fill(recognizer.asr_model, stored, others=(BPE_MODEL,), dtype=getattr(torch, dtype))
    if lm is not None:
        fill_scorer(recognizer, lm, getattr(torch, dtype))
    return recognizer


def _check_place(device: str | torch.device, dtype: str) -> None:
    if str(device) != "cpu":
        raise ValueError(
            f"device: {device}; valid: cpu, where INT4 kernels run. On another device use the trained "
            "model itself: Speech2Text(asr_train_config, asr_model_file, device=...)."
        )
    if dtype not in DTYPES:
        raise ValueError(f"dtype: {dtype!r}; valid: {', '.join(DTYPES)}")


def _recognizer(
    stored: StoredModel, lm: StoredModel | None, dtype: str, options: Mapping[str, Any]
) -> Any:
    """Return a recognizer with random weights."""
    try:
        recognizer = _speech2text(stored, lm, dtype, options)
    except Exception:
        # Is it the file, or what was asked for beside it?
        with building(stored):
            if not options and lm is None and dtype == "float32":
                raise
            _speech2text(stored, None, "float32", {})
        raise
    if BPE_MODEL in stored.tensors and not {"bpemodel", "token_type"} & options.keys():
        recognizer.tokenizer = _tokenizer(stored)
    return recognizer


def _speech2text(
    stored: StoredModel, lm: StoredModel | None, dtype: str, options: Mapping[str, Any]
) -> Any:
    from espnet2.bin.asr_inference import Speech2Text

    from espnet_quant4.int4.lm_file import write_config

    limit = allocation_limit(stored)
    if options.get("lm_file"):
        limit.left += Path(options["lm_file"]).stat().st_size
    with limit, ScratchFiles() as files:
        if lm is not None:
            limit.left += allocation_limit(lm).left
            options = {**options, "lm_train_config": write_config(lm, files)}
        config = _prepare(stored.config, stored.tensors, files)
        content = yaml.safe_dump(config).encode()
        return Speech2Text(
            asr_train_config=files.write("config.yaml", content),
            asr_model_file=None,
            device="cpu",
            dtype=dtype,
            **options,
        )


def _tokenizer(stored: StoredModel) -> Any:
    from espnet_quant4.int4.tokenizer import StoredSentencepieces

    model = stored.tensors[BPE_MODEL]
    try:
        return StoredSentencepieces(with_table(model.numpy().tobytes()))
    except (RuntimeError, ValueError) as error:
        raise broken(stored.path, f"{BPE_MODEL} is no SentencePiece model ({error})") from error


def _prepare(
    config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], files: ScratchFiles
) -> dict[str, Any]:
    """Return a configuration for ESPnet, with the files it names made from the tensors."""
    prepared = with_statistics(config, tensors, files)
    conf = dict(prepared.get("model_conf") or {})
    if prepared.get("model") == "quant_espnet":
        # The loss is for training; its package need not be installed where the model is used.
        conf["transducer_loss"] = "torchaudio"
    prepared["model_conf"] = conf
    # The tokenizer is made from the tensor.
    prepared["bpemodel"] = None
    return {**copy.deepcopy(_defaults()), **prepared}


@functools.lru_cache(maxsize=1)
def _defaults() -> dict[str, Any]:
    """Return ESPnet's defaults of what builds a model, for keys that the file lacks."""
    from espnet2.tasks.asr import ASRTask

    # Not get_default_config(), which reads the command line of whatever program this is.
    parser = ASRTask.get_parser()
    return {key: parser.get_default(key) for key in KEYS}


def _build(
    config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], files: ScratchFiles
) -> torch.nn.Module:
    import argparse

    from espnet2.tasks.asr import ASRTask

    return ASRTask.build_model(argparse.Namespace(**_prepare(config, tensors, files)))
