"""Real-time factor of whole utterances: features + encoder + search, FP32 ESPnet against INT4.

    python benchmarks/rtf.py --fp32 exp/demo/exp/asr_fp32 --int4 exp/demo/exp/asr_tailored/model.int4 \\
        --data exp/demo/dump/raw/test

Utterances go through the two by turns, in one process; the parts are timed apart.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import soundfile
import torch
from espnet2.bin.asr_inference import Speech2Text

from espnet_quant4.int4.model_file import load
from espnet_quant4.text_files import read_table, write_text


def timed(recognizer: Speech2Text, samples: torch.Tensor) -> dict[str, float]:
    """Recognize one utterance; return seconds of its parts."""
    model = recognizer.asr_model
    speech, lengths = samples.unsqueeze(0), torch.tensor([len(samples)])
    times = [time.perf_counter()]
    feats, lengths = model._extract_feats(speech, lengths)
    if model.normalize is not None:
        feats, lengths = model.normalize(feats, lengths)
    times.append(time.perf_counter())
    encoded, _, _ = model.encoder(feats, lengths)
    times.append(time.perf_counter())
    recognizer._decode_single_sample(encoded[0])
    times.append(time.perf_counter())
    return dict(
        zip(("features", "encoder", "search"),
            (b - a for a, b in itertools.pairwise(times)), strict=True)
    )  # fmt: skip


def get_parser() -> argparse.ArgumentParser:
    """Return the benchmark's parser."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fp32", type=Path, required=True, help="experiment folder")
    parser.add_argument("--model", default="valid.loss.ave.pth")
    parser.add_argument("--int4", type=Path, required=True, help="made by espnet-quant4 convert")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--beam_size", type=int, default=1)
    parser.add_argument("--num_threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("exp/bench/rtf.json"))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    args = get_parser().parse_args(arguments)
    recordings = list(read_table(args.data / "wav.scp").values())
    if len(recordings) < 2:
        raise ValueError(
            f"{args.data / 'wav.scp'}: {len(recordings)} utterances; the first one warms up, so it "
            "takes two."
        )
    torch.set_num_threads(args.num_threads)
    options = {"beam_size": args.beam_size, "ctc_weight": 0.0}
    recognizers = {
        "fp32": Speech2Text(args.fp32 / "config.yaml", args.fp32 / args.model, **options),
        "int4": load(args.int4, **options),
    }
    totals = {name: dict.fromkeys(("features", "encoder", "search"), 0.0) for name in recognizers}
    seconds = 0.0
    with torch.no_grad():
        for number, path in enumerate(recordings):
            samples, rate = soundfile.read(path, dtype="float32")
            for name, recognizer in recognizers.items():
                found = timed(recognizer, torch.from_numpy(samples))
                if number:  # the first utterance warms up
                    for part, value in found.items():
                        totals[name][part] += value
            seconds += len(samples) / rate if number else 0.0
    rows = []
    for name, parts in totals.items():
        factors = {part: value / seconds for part, value in parts.items()}
        rows.append({"candidate": name, **factors, "all": sum(factors.values())})
        print(name, " ".join(f"{part} {value:.4f}" for part, value in list(rows[-1].items())[1:]))
    fp32, int4 = rows
    print("fp32 / int4:", " ".join(f"{p} {fp32[p] / int4[p]:.2f}" for p in list(fp32)[1:]))
    write_text(args.output, json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
