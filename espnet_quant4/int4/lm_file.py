"""A language model in one ``.int4`` file: weights, configuration, tokens."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from espnet_quant4.checkpoints import listed
from espnet_quant4.int4.model_file import BPE_MODEL
from espnet_quant4.int4.scratch_files import ScratchFiles
from espnet_quant4.int4.stored_model import StoredModel, building, fill, read_model, write_model

# What of a training's configuration builds the model and reads text; the rest is about training.
KEYS = (
    "lm",
    "lm_conf",
    "model",
    "model_conf",
    "token_type",
    "non_linguistic_symbols",
    "cleaner",
    "g2p",
    "use_preprocessor",
)


def save(model: torch.nn.Module, train_config: Mapping[str, Any], path: str | Path) -> int:
    """Write a language model.

    Args:
        model: ESPnet's language model with ``lm: quant_seq_rnn``, quantized or converted.
        train_config: the training's ``config.yaml``.
        path: where to.

    Returns:
        The size of the file in bytes.

    Raises:
        ValueError: for a model that cannot be converted.
        OSError: for a SentencePiece model that is not there.
    """
    config = {key: train_config[key] for key in KEYS if key in train_config}
    config["token_list"] = list(train_config["token_list"])
    others = {}
    bpemodel = train_config.get("bpemodel")
    if bpemodel and train_config.get("token_type") == "bpe":
        content = bytearray(Path(bpemodel).read_bytes())
        others[BPE_MODEL] = torch.frombuffer(content, dtype=torch.uint8)
    return write_model(path, "lm", model, config, others, _build)


def load(path: str | Path, folder: Path | None = None) -> tuple[Any, argparse.Namespace]:
    """Read a language model.

    Args:
        path: of the file, which is all that is needed.
        folder: where the SentencePiece model is written, if the file has one; None: nowhere.

    Returns:
        ESPnet's language model in evaluation: ``model.lm`` scores tokens in a search, as ESPnet's
        ``BatchScorerInterface``, and ``model.nll`` whole texts; and the options that it was built with,
        among them ``token_list``, ``token_type`` and ``bpemodel``, which is None without ``folder``.

    Raises:
        Int4FileError: for a file that cannot be read.
    """
    stored = read_model(path, "lm")
    with building(stored):
        args = _arguments(stored.config)
        model = _build_from(args)
    fill(model, stored, others=(BPE_MODEL,))
    if folder is not None and BPE_MODEL in stored.tensors:
        args.bpemodel = str(folder / "bpe.model")
        Path(args.bpemodel).write_bytes(stored.tensors[BPE_MODEL].numpy().tobytes())
    return model.eval(), args


def is_lm_file(path: str | Path) -> bool:
    """Whether a file is an INT4 file, and no checkpoint, by how it begins."""
    with Path(path).open("rb") as file:
        beginning = file.read(64)
    return beginning[8:].startswith(b'{"__metadata__"')


def read_lm(path: str | Path, token_list: Sequence[str]) -> StoredModel:
    """Read a language model's file for a recognizer.

    Args:
        path: of the file.
        token_list: the recognizer's.

    Raises:
        Int4FileError: for a file that cannot be read.
        ValueError: for a language model of other tokens, whose scores would be of other words.
    """
    stored = read_model(path, "lm")
    own = list(stored.config["token_list"])
    if own != list(token_list):
        other = [f"{a!r} for {b!r}" for a, b in zip(own, token_list, strict=False) if a != b]
        raise ValueError(
            f"{path}: the language model has {len(own)} tokens and the recognizer "
            f"{len(token_list)}; they differ in {listed(other) or 'their number'}. Both have to be "
            "trained with one token list."
        )
    return stored


def write_config(stored: StoredModel, files: ScratchFiles) -> Path:
    """Write a ``config.yaml`` that ESPnet builds a file's language model from; returns its path."""
    import yaml

    return files.write("lm.yaml", yaml.safe_dump(vars(_arguments(stored.config))).encode())


def fill_scorer(recognizer: Any, stored: StoredModel, dtype: torch.dtype = torch.float32) -> None:
    """Put a file's tensors into the language model of ESPnet's ``Speech2Text``, in place.

    Args:
        recognizer: built with `write_config`'s ``lm_train_config``.
        stored: the file.
        dtype: of the recognizer.
    """
    from espnet2.lm.abs_model import AbsLM

    if recognizer.beam_search_transducer is not None:
        scorer = recognizer.beam_search_transducer.lm
    else:
        modules = recognizer.beam_search.modules()
        scorer = next((m for m in modules if isinstance(m, AbsLM)), None)
    if scorer is None:
        return  # a search that leaves it out, since its weight is 0
    # In place: the search holds the scorer under several names.
    holder = torch.nn.Module()
    holder.lm = scorer
    fill(holder, stored, others=(BPE_MODEL,), dtype=dtype)


def _arguments(config: Mapping[str, Any]) -> argparse.Namespace:
    from espnet2.tasks.lm import LMTask

    # Not get_default_config(), which reads the command line of whatever program this is.
    parser = LMTask.get_parser()
    defaults = {key: parser.get_default(key) for key in KEYS}
    return argparse.Namespace(**{**defaults, **config, "bpemodel": None, "init": None})


def _build(
    config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], files: ScratchFiles
) -> torch.nn.Module:
    return _build_from(_arguments(config))


def _build_from(args: argparse.Namespace) -> torch.nn.Module:
    from espnet2.tasks.lm import LMTask

    model: torch.nn.Module = LMTask.build_model(args)
    return model
