"""Files with a valid checksum that no right writer would write: one thing in them is wrong."""

import json
import random

import torch

JUNK = [None, True, -1, 0, 1.5, 2**40, "x", "", [], [1], {}, {"a": 1}, "../../etc"]
JUNK_TEXTS = ["", "null", "{", "[]", "{}", "3", '"x"', "[1]", '{"a": 1}', "[" * 50_000, "NaN"]
PARTS = ["config", "quantized", "rebuilt", "halves"]


def mutated(tensors, metadata, seed):
    """Return tensors and metadata with one thing changed, and a name for the change."""
    rng = random.Random(seed)
    tensors, metadata = dict(tensors), dict(metadata)
    change = rng.choice(
        [_metadata, _description, _description, _config, _config, _conf, _conf, _tensor, _tensor]
    )
    return tensors, metadata, f"{change.__name__}: {change(rng, tensors, metadata)}"


def _metadata(rng, tensors, metadata):
    key = rng.choice([*PARTS, "task"])
    if rng.random() < 0.3:
        metadata.pop(key)
        return f"without {key}"
    metadata[key] = rng.choice(JUNK_TEXTS)
    return f"{key} = {metadata[key][:20]}"


def _change(rng, mapping):
    """Drop, change or add an entry of a mapping."""
    key = rng.choice([*mapping, "nothing_known"])
    if rng.random() < 0.3 and key in mapping:
        mapping.pop(key)
        return f"without {key}"
    mapping[key] = rng.choice(JUNK)
    return f"{key} = {mapping[key]!r}"


def _description(rng, tensors, metadata):
    descriptions = json.loads(metadata["quantized"])
    name = rng.choice(list(descriptions))
    if rng.random() < 0.2:
        what = _change(rng, descriptions)
    elif "shape" in descriptions[name] and rng.random() < 0.4:
        place = rng.randrange(2)
        descriptions[name]["shape"][place] = rng.choice([*JUNK, 7, 81])
        what = f"{name}.shape[{place}] = {descriptions[name]['shape'][place]!r}"
    else:
        what = f"{name}: {_change(rng, descriptions[name])}"
    metadata["quantized"] = json.dumps(descriptions)
    return what


def _config(rng, tensors, metadata):
    config = json.loads(metadata["config"])
    what = _change(rng, config)
    metadata["config"] = json.dumps(config)
    return what


def _conf(rng, tensors, metadata):
    config = json.loads(metadata["config"])
    # Schemes are files of the user's or a mapping; what is in the file is the mapping.
    key = rng.choice([key for key in config if key.endswith("_conf") and config[key]])
    what = f"{key}: {_change(rng, config[key])}"
    metadata["config"] = json.dumps(config)
    return what


def _tensor(rng, tensors, metadata):
    name = rng.choice(list(tensors))
    tensor = tensors[name].clone()
    kind = rng.choice(
        [
            "drop",
            "swap",
            "dtype",
            "flat",
            "longer",
            "empty",
            "zero",
            "nan",
            "inf",
            "negative",
            "add",
        ]
    )
    if kind == "drop":
        tensors.pop(name)
    elif kind == "add":
        tensors["nothing_known"] = tensor
    elif kind == "swap":
        other = rng.choice(list(tensors))
        tensors[name], tensors[other] = tensors[other], tensors[name]
        kind = f"swap with {other}"
    elif kind == "dtype":
        dtype = rng.choice([torch.float64, torch.int64, torch.float16, torch.int8, torch.bool])
        tensors[name] = tensor.to(dtype)
        kind = str(dtype)
    elif kind == "flat":
        tensors[name] = tensor.reshape(1, -1) if tensor.dim() == 1 else tensor.flatten()
    elif kind == "longer":
        tensors[name] = torch.cat([tensor.flatten(), tensor.flatten()])
    elif kind == "empty":
        tensors[name] = tensor.flatten()[:0]
    elif kind == "zero":
        tensors[name] = torch.zeros_like(tensor)
    else:
        value = {"nan": torch.nan, "inf": torch.inf, "negative": -1.0}[kind]
        if tensor.is_floating_point():
            tensor.view(-1)[rng.randrange(tensor.numel())] = value
        tensors[name] = tensor
    return f"{name} {kind}"
