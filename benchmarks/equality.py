"""INT4 against emulated on a trained model and real speech: codes, encoder output, recognized text.

    python benchmarks/equality.py --system exp/demo/exp/asr_tailored --data exp/demo/dump/raw/test

Every layer is given the emulated layer's input, and every step of it the emulated layer's last hidden
state (or else the first code that falls the other way at a tie would change all that follow), and its
codes are compared with the emulated ones. A code may differ only where the emulated hidden state lies
within 1e-5 of a tie between two levels. Then whole utterances are recognized both ways.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from espnet2.bin.asr_inference import Speech2Text

from espnet_quant4.int4 import use_int4
from espnet_quant4.int4.convert import convert_module
from espnet_quant4.int4.lstm import Int4LSTM
from espnet_quant4.kernels.native import NativeLSTM
from espnet_quant4.nn import QuantLSTM
from espnet_quant4.quantizers import Quantizer
from espnet_quant4.text_files import read_table, write_text

TIE = 1e-5


def compare_codes(lstm: QuantLSTM, x: torch.Tensor, totals: dict) -> None:
    """Compare the codes of all layers, step by step, on one utterance ``(T, 1, input_size)``."""
    for layer in range(lstm.num_layers):
        single = one_layer(lstm, layer)
        int4 = Int4LSTM.from_quantized(single)
        hidden = single(x)[0]
        # A layer puts out what the next one quantizes, each direction by its own quantizer.
        directions = hidden.split(lstm.hidden_size, dim=-1)
        coded = []
        for d, states in enumerate(directions):
            order = list(range(len(x)))[:: -1 if d else 1]
            compare_direction(single, int4, d, x, states[:, 0], order, totals)
            coded.append(hidden_quantizer(single, 0, d).quantize(states))
        x = torch.cat(coded, dim=-1)


def hidden_quantizer(lstm: QuantLSTM, layer: int, direction: int) -> Quantizer:
    """Return the quantizer of a layer's hidden states in one direction."""
    quantizer = lstm.quantizer(f"l{layer}{'_reverse' if direction else ''}", "hidden")
    assert quantizer is not None  # `main` takes only stacks that are quantized as a whole
    return quantizer


def one_layer(lstm: QuantLSTM, layer: int) -> QuantLSTM:
    """Return one layer of a stack as a stack of its own that quantizes its input likewise."""
    inputs = lstm.input_size if layer == 0 else (2 if lstm.bidirectional else 1) * lstm.hidden_size
    single = QuantLSTM(inputs, lstm.hidden_size, 1, bidirectional=lstm.bidirectional).eval()
    for ending in ("", "_reverse") if lstm.bidirectional else ("",):
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            setattr(single, f"{name}_l0{ending}", getattr(lstm, f"{name}_l{layer}{ending}"))
        single.quantizers[f"l0{ending}"] = torch.nn.ModuleDict(
            dict(lstm.quantizers[f"l{layer}{ending}"].items())
        )
    if layer > 0:
        # What comes from the layer below is on this grid already, but for the backward half where its
        # clip differs; both sides quantize it alike.
        single.quantizers["l0"]["input"] = hidden_quantizer(lstm, layer - 1, 0)
    return single.eval()


def compare_direction(
    single: QuantLSTM, int4: Int4LSTM, d: int, source: torch.Tensor, hidden: torch.Tensor,
    order: list[int], totals: dict,
) -> None:  # fmt: skip
    """Compare one direction, each step from the emulated hidden state and our own cell state."""
    quantizer = hidden_quantizer(single, 0, d)
    weights = int4.layers()[0][d]
    scale = float(quantizer.clip()) / quantizer.max_code
    step = NativeLSTM.from_layers([[weights]], int4.input_size)
    size = int4.hidden_size
    cell, last = torch.zeros(1, 1, size), torch.zeros(1, 1, size)
    for frame in order:
        out, codes = torch.zeros(1, 1, size), torch.zeros(1, 1, 1, size, dtype=torch.int8)
        state = last.clone()
        step.run(source[frame : frame + 1].contiguous(), int4.clip("input_l0"),
                 int4.max_code("input_l0"), state, cell, out, None, codes)  # fmt: skip
        expected = quantizer.codes(hidden[frame])
        different = codes.view(-1) != expected
        levels = (hidden[frame] / scale)[different]
        distance = (levels - levels.floor() - 0.5).abs()
        totals["codes"] += size
        totals["different"] += int(different.sum())
        totals["not_at_a_tie"] += int((distance > TIE).sum())
        totals["farthest"] = max([totals["farthest"], *distance.tolist()])
        last = hidden[frame].view(1, 1, size).clone()


def encoder_stacks(model: torch.nn.Module, system: Path) -> list[QuantLSTM]:
    """Return the stacks of a model's encoder that compute on codes."""
    stacks = [m for m in model.encoder.modules() if isinstance(m, QuantLSTM)]
    found = [lstm for lstm in stacks if convert_module(lstm) is not None]
    if not found:
        raise ValueError(
            f"{system}: of {len(stacks)} LSTMs of ours in its encoder none is quantized as a whole; "
            "give the folder of a quantized system, such as exp/asr_tailored."
        )
    return found


def recognize(recognizer: Speech2Text, samples: np.ndarray, inference: str) -> tuple[str, float]:
    """Return text and score of an utterance's best hypothesis."""
    use_int4(recognizer.asr_model, inference)
    text, _, _, hypothesis = recognizer(samples)[0]
    return text, round(float(hypothesis.score), 4)


def get_parser() -> argparse.ArgumentParser:
    """Return the benchmark's parser."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--system", type=Path, required=True)
    parser.add_argument("--model", default="valid.loss.ave.pth")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--beam_size", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("exp/bench/equality.json"))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    args = get_parser().parse_args(arguments)
    os.environ.pop("ESPNET_QUANT4_INFERENCE", None)
    recognizer = Speech2Text(
        args.system / "config.yaml",
        args.system / args.model,
        beam_size=args.beam_size,
        ctc_weight=0.0,
    )
    model = recognizer.asr_model
    stacks = encoder_stacks(model, args.system)
    totals = {"codes": 0, "different": 0, "not_at_a_tie": 0, "farthest": 0.0}
    differing = []
    recordings = read_table(args.data / "wav.scp")
    inputs: dict[QuantLSTM, torch.Tensor] = {}

    def see(lstm: QuantLSTM, arguments: tuple[torch.Tensor, ...]) -> None:
        inputs[lstm] = arguments[0].transpose(0, 1) if lstm.batch_first else arguments[0]

    hooks = [lstm.register_forward_pre_hook(see) for lstm in stacks]
    for key, path in recordings.items():
        samples, _ = soundfile.read(path, dtype="float32")
        # Emulated last, so that the inputs are the emulated ones.
        results = {way: recognize(recognizer, samples, way) for way in ("int4", "emulated")}
        with torch.no_grad():
            for lstm in stacks:
                compare_codes(lstm, inputs[lstm], totals)
        if results["emulated"][0] != results["int4"][0]:
            differing.append({"utterance": key, **results})
            print(key, results)
    for hook in hooks:
        hook.remove()
    rate = totals["different"] / totals["codes"]
    print(f"{totals['different']} of {totals['codes']:,} codes differ ({rate:.1e})")
    print(
        f"{totals['not_at_a_tie']} farther than {TIE:g} from a tie (at most {totals['farthest']:.1e})"
    )
    print(f"{len(differing)} of {len(recordings)} texts differ")
    content = {**totals, "utterances": len(recordings), "differing_texts": differing}
    write_text(args.output, json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
