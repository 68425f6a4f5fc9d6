"""A whole recognizer in one ``.int4`` file: weights, configuration, tokens, feature statistics."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from importlib import metadata as packages
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from espnet_quant4.int4 import file_format
from espnet_quant4.int4.convert import convert, convert_structure, describe
from espnet_quant4.int4.file_format import Int4FileError
from espnet_quant4.int4.int4_module import Description, Int4Module

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
        ValueError: where nothing in the model can be converted.
    """
    if not any(isinstance(module, Int4Module) for module in model.modules()):
        model = convert(model)
    config = {key: train_config[key] for key in KEYS if key in train_config}
    config["token_list"] = list(train_config["token_list"])
    if config.get("normalize_conf"):
        # Its tensors are in the file; the path means nothing elsewhere.
        config["normalize_conf"] = {
            key: value for key, value in config["normalize_conf"].items() if key != "stats_file"
        }
    tensors = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith("criterion_")
    }
    bpemodel = train_config.get("bpemodel")
    if bpemodel and train_config.get("token_type") == "bpe":
        tensors[BPE_MODEL] = torch.frombuffer(
            bytearray(Path(bpemodel).read_bytes()), dtype=torch.uint8
        )
    metadata = {
        "config": json.dumps(config, separators=(",", ":")),
        "quantized": json.dumps(describe(model), separators=(",", ":")),
        "versions": json.dumps({name: packages.version(name) for name in ("torch", "espnet")}),
    }
    # Filter banks and the like follow from the configuration.
    with tempfile.TemporaryDirectory() as folder:
        fresh = _build(_prepare(config, tensors, Path(folder)))
        own = {name for name, _ in fresh.named_buffers()} - {
            name for name, _ in fresh.named_parameters()
        }
        rebuilt = [
            name
            for name, tensor in fresh.state_dict().items()
            if name in own and name in tensors and name.startswith("frontend.")
            and torch.equal(tensor, tensors[name])
        ]  # fmt: skip
    metadata["rebuilt"] = json.dumps(rebuilt)
    kept = {name: tensor for name, tensor in tensors.items() if name not in rebuilt}
    # What was published in half precision loses nothing by it.
    halves = [name for name, tensor in kept.items() if _fits_half(tensor)]
    metadata["halves"] = json.dumps(halves)
    kept.update({name: kept[name].half() for name in halves})
    return file_format.write(path, kept, metadata)


def _fits_half(tensor: torch.Tensor) -> bool:
    return (
        tensor.dtype == torch.float32
        and tensor.numel() > 64
        and torch.equal(tensor.half().float(), tensor)
    )


def read_config(metadata: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Description]]:
    """Return the configuration and the descriptions of quantized tensors in a file's metadata."""
    return json.loads(metadata["config"]), json.loads(metadata["quantized"])


def load(path: str | Path, **options: Any) -> Any:
    """Read a recognizer.

    Args:
        path: of the file, which is all that is needed.
        options: of ESPnet's ``Speech2Text``, such as ``beam_size``.

    Returns:
        ESPnet's ``espnet2.bin.asr_inference.Speech2Text``: call it with a waveform.

    Raises:
        Int4FileError: for a file that cannot be read.
    """
    from espnet2.bin.asr_inference import Speech2Text

    tensors, metadata = file_format.read(path)
    for name in json.loads(metadata["halves"]):
        tensors[name] = tensors[name].float()
    config, descriptions = read_config(metadata)
    folder = tempfile.TemporaryDirectory(prefix="espnet_quant4_")
    prepared = _prepare(config, tensors, Path(folder.name))
    yaml_path = Path(folder.name, "config.yaml")
    yaml_path.write_text(yaml.safe_dump(prepared), encoding="utf-8")
    recognizer = Speech2Text(
        asr_train_config=yaml_path, asr_model_file=None, device="cpu", **options
    )
    _fill(recognizer.asr_model, tensors, descriptions, json.loads(metadata["rebuilt"]), Path(path))
    # Files that ESPnet reads when it first needs them live as long as the recognizer.
    recognizer.files = folder
    return recognizer


def _fill(
    model: torch.nn.Module,
    tensors: dict[str, torch.Tensor],
    descriptions: Mapping[str, Description],
    rebuilt: list[str],
    path: Path,
) -> None:
    """Put a file's tensors into a model that was built from its configuration."""
    # In place: ESPnet's search holds the decoder and the joint network.
    convert_structure(model, descriptions)
    loadable = {name: tensor for name, tensor in tensors.items() if name != BPE_MODEL}
    outcome = model.load_state_dict(loadable, strict=False, assign=True)
    missing = [
        name
        for name in outcome.missing_keys
        if name not in rebuilt and not name.startswith("criterion_")
    ]
    if missing or outcome.unexpected_keys:
        raise Int4FileError(
            f"{path}: its tensors do not fit its configuration: missing {missing}, unexpected "
            f"{outcome.unexpected_keys}. It was written with {packages.version('espnet')} or another "
            "ESPnet; convert the model again with the one that is installed."
        )


def _prepare(
    config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], folder: Path
) -> dict[str, Any]:
    """Return a configuration for ESPnet, with the files it names made from the tensors."""
    prepared = json.loads(json.dumps(config))
    prepared["init"] = None
    conf = dict(prepared.get("model_conf") or {})
    if prepared.get("model") == "quant_espnet":
        # The loss is for training; its package need not be installed where the model is used.
        conf["transducer_loss"] = "torchaudio"
    prepared["model_conf"] = conf
    if prepared.get("normalize") == "global_mvn":
        mean, std = tensors["normalize.mean"].double(), tensors["normalize.std"].double()
        statistics = folder / "feats_stats.npz"
        np.savez(
            statistics,
            count=np.array(1.0),
            sum=mean.float().numpy(),
            sum_square=(std.square() + mean.square()).float().numpy(),
        )
        prepared["normalize_conf"] = {
            **(prepared.get("normalize_conf") or {}),
            "stats_file": str(statistics),
        }
    prepared["bpemodel"] = None
    if BPE_MODEL in tensors:
        model = folder / "bpe.model"
        model.write_bytes(tensors[BPE_MODEL].numpy().tobytes())
        prepared["bpemodel"] = str(model)
    return {**_defaults(), **prepared}


def _defaults() -> dict[str, Any]:
    """Return ESPnet's defaults of what builds a model, for keys that the file lacks."""
    from espnet2.tasks.asr import ASRTask

    # Not get_default_config(), which reads the command line of whatever program this is.
    parser = ASRTask.get_parser()
    return {key: parser.get_default(key) for key in KEYS}


def _build(config: Mapping[str, Any]) -> torch.nn.Module:
    import argparse

    from espnet2.tasks.asr import ASRTask

    return ASRTask.build_model(argparse.Namespace(**config))
