"""``espnet-quant4 info``: what is in an INT4 file, tensor by tensor."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(prog="espnet-quant4 info", description=__doc__)
    parser.add_argument("file", type=Path)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    args = get_parser().parse_args(arguments)
    from espnet_quant4.bin.convert import compare_sizes
    from espnet_quant4.int4.running_path import describe_kernels
    from espnet_quant4.int4.stored_model import read_any_model

    stored = read_any_model(args.file)
    tensors, descriptions = stored.tensors, stored.descriptions
    print(f"{'bits':>4} {'bytes':>10}  {'shape':<14} {'clips':<24} tensor")
    weights = 0
    for name, tensor in sorted(tensors.items()):
        if name.endswith("_scale") and name.removesuffix("_scale") in descriptions:
            continue  # shown as the clips of its weight
        bits, shape, clips = _describe(name, tensors, descriptions)
        size = tensor.numel() * tensor.element_size()
        if name in stored.halves:
            bits, size = 16, size // 2
        print(f"{bits:>4} {size:>10,}  {'x'.join(map(str, shape)):<14} {clips:<24} {name}")
        weights += _float32_elements(name, tensor, descriptions)
    for name, found in descriptions.items():
        if "tied_to" in found:
            print(f"{found['bits']:>4} {'':>10}  {'':<14} {'':<24} {name} is {found['tied_to']}")
    metadata = stored.metadata
    print(
        f"format {metadata['format_version']}, {_describe_model(stored.config)}, "
        f"{metadata.get('versions', 'versions unknown')}"
    )
    print(f"file {compare_sizes(args.file.stat().st_size, 4 * weights)}")
    print(f"this machine computes on its codes by: {describe_kernels()}")
    return 0


def _describe_model(config: dict[str, Any]) -> str:
    if "num_pdfs" in config:
        return f"{config.get('encoder')} + {config.get('model')}, {config['num_pdfs']} pdf ids"
    tokens = len(config.get("token_list") or [])
    if "lm" in config:
        return f"{config['lm']} language model, {tokens} tokens"
    return f"{config.get('encoder')} + {config.get('decoder')}, {tokens} tokens"


def _describe(
    name: str, tensors: dict[str, Any], descriptions: dict[str, Any]
) -> tuple[int, list[int], str]:
    tensor, found = tensors[name], descriptions.get(name)
    if found is None:
        return 8 * tensor.element_size(), list(tensor.shape), ""
    if found["role"] == "activation":
        return found["bits"], list(tensor.shape), f"{float(tensor):.4g}"
    clips = tensors[f"{name}_scale"] * (2 ** (found["bits"] - 1) - 1)
    if clips.numel() > 4:
        shown = f"{clips.numel()}: {clips.min():.4g} to {clips.max():.4g}"
    else:
        shown = " ".join(f"{clip:.3g}" for clip in clips.tolist())
    return found["bits"], found["shape"], shown


def _float32_elements(name: str, tensor: Any, descriptions: dict[str, Any]) -> int:
    """Return how many numbers of the float model a tensor stands for; 0 for what training added."""
    from espnet_quant4.hybrid.model_file import LOG_PRIOR
    from espnet_quant4.int4.model_file import BPE_MODEL

    found = descriptions.get(name)
    if found is not None:
        if found["role"] != "weight" or found.get("tied"):
            return 0  # an activation's clip, or a weight that counts elsewhere
        return int(found["shape"][0] * found["shape"][1])
    if name in (BPE_MODEL, LOG_PRIOR) or name.startswith("normalize."):
        return 0
    # An LSTM of the float model has two biases, which are stored as their sum.
    is_sum = name.rpartition(".")[2].startswith("bias_l")
    return int(tensor.numel()) * (2 if is_sum else 1)
