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
from pathlib import Path

import soundfile
import torch
from espnet2.bin.asr_inference import Speech2Text

from espnet_quant4.int4 import use_int4
from espnet_quant4.int4.lstm import Int4LSTM
from espnet_quant4.kernels.native import NativeLSTM
from espnet_quant4.nn import QuantLSTM

TIE = 1e-5


def compare_codes(lstm: QuantLSTM, x: torch.Tensor, totals: dict) -> None:
    """Compare the codes of all layers, step by step, on one utterance ``(1, T, input_size)``."""
    directions = 2 if lstm.bidirectional else 1
    frames = x.size(1)
    source = x.transpose(0, 1)
    for layer in range(lstm.num_layers):
        zeros = torch.zeros(directions, 1, lstm.hidden_size)
        # What the emulated layer computes, with the state behind every step.
        single = one_layer(lstm, layer)
        emulated, coded, _ = single._layer(0, source, None, (zeros, zeros), True)
        int4 = Int4LSTM.from_quantized(single)
        for d in range(directions):
            size = lstm.hidden_size
            mine = slice(d * size, (d + 1) * size)
            order = range(frames) if d == 0 else range(frames - 1, -1, -1)
            compare_direction(single, int4, d, source, emulated[:, 0, mine], list(order), totals)
        source = coded


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
        # The codes of the layer below, which are on the grid already.
        single.quantizers["l0"]["input"] = lstm.quantizers[f"l{layer - 1}"]["hidden"]
    return single.eval()


def compare_direction(
    single: QuantLSTM, int4: Int4LSTM, d: int, source: torch.Tensor, hidden: torch.Tensor,
    order: list[int], totals: dict,
) -> None:  # fmt: skip
    """Compare one direction, each step from the emulated hidden state and our own cell state."""
    name = "l0_reverse" if d else "l0"
    quantizer = single.quantizers[name]["hidden"]
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


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--system", type=Path, required=True)
    parser.add_argument("--model", default="valid.loss.ave.pth")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--beam_size", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("exp/bench/equality.json"))
    args = parser.parse_args()
    os.environ.pop("ESPNET_QUANT4_INFERENCE", None)
    recognizer = Speech2Text(
        args.system / "config.yaml",
        args.system / args.model,
        beam_size=args.beam_size,
        ctc_weight=0.0,
    )
    model = recognizer.asr_model
    totals = {"codes": 0, "different": 0, "not_at_a_tie": 0, "farthest": 0.0}
    differing = []
    lines = (args.data / "wav.scp").read_text(encoding="utf-8").splitlines()
    seen: list[torch.Tensor] = []
    lstm = model.encoder.enc[0].nbrnn
    hook = lstm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for line in lines:
        key, _, path = line.partition(" ")
        samples, _ = soundfile.read(path.strip(), dtype="float32")
        results = {}
        for inference in ("emulated", "int4"):
            use_int4(model, inference)
            text, _, _, hypothesis = recognizer(samples)[0]
            results[inference] = (text, round(float(hypothesis.score), 4))
        with torch.no_grad():
            use_int4(model, "emulated")
            compare_codes(lstm, seen[0], totals)
        seen.clear()
        if results["emulated"][0] != results["int4"][0]:
            differing.append({"utterance": key, **results})
            print(key, results)
    hook.remove()
    rate = totals["different"] / totals["codes"]
    print(f"{totals['different']} of {totals['codes']:,} codes differ ({rate:.1e})")
    print(
        f"{totals['not_at_a_tie']} farther than {TIE:g} from a tie (at most {totals['farthest']:.1e})"
    )
    print(f"{len(differing)} of {len(lines)} texts differ")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    content = {**totals, "utterances": len(lines), "differing_texts": differing}
    args.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
