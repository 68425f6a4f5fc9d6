"""``espnet-quant4 transcribe``: recognize recordings with an INT4 file."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(prog="espnet-quant4 transcribe", description=__doc__)
    parser.add_argument("file", type=Path, help="made by espnet-quant4 convert")
    parser.add_argument("audio", nargs="+", help="recordings; - reads names from standard input")
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="a line a recording"
    )
    parser.add_argument("--beam_size", type=int, default=1, help="1: greedy")
    parser.add_argument("--channel", type=int, help="from 0; mixed where left out")
    parser.add_argument("--num_threads", type=int, help="default: PyTorch's")
    parser.add_argument(
        "--chunk_seconds", type=float, help="stream in chunks (unidirectional encoders)"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 1 where a recording failed, 130 on Ctrl-C."""
    parser = get_parser()
    args = parser.parse_args(arguments)
    for name in ("beam_size", "num_threads", "chunk_seconds"):
        value = getattr(args, name)
        if value is not None and value <= 0:
            parser.error(f"--{name} {value}: valid are numbers above 0")
    try:
        return transcribe(args)
    except KeyboardInterrupt:
        return 130


def transcribe(args: argparse.Namespace) -> int:
    """Recognize and print; what was printed before an interruption stays."""
    import torch
    from tqdm import tqdm

    from espnet_quant4.int4.audio import read_audio, sampling_rate_of
    from espnet_quant4.int4.model_file import load

    if args.num_threads:
        torch.set_num_threads(args.num_threads)
    try:
        recognizer = load(args.file, beam_size=args.beam_size, ctc_weight=0.0)
        if args.chunk_seconds is not None:
            from espnet_quant4.int4.streaming import StreamingRecognizer

            streaming = StreamingRecognizer(recognizer)
    except ValueError as error:
        print(f"espnet-quant4 transcribe: {error}", file=sys.stderr)
        return 1
    rate = sampling_rate_of(recognizer.asr_train_args.frontend_conf)
    failed = False
    names = list(_names(args.audio))
    for name in tqdm(names, unit="file", disable=len(names) < 2 or not sys.stderr.isatty()):
        start = time.perf_counter()
        try:
            samples = read_audio(name, rate, args.channel)
            if args.chunk_seconds is None:
                recognized = _recognize(recognizer, samples)
            else:
                recognized = _stream(streaming, samples, rate, args.chunk_seconds)
        except ValueError as error:
            print(f"espnet-quant4 transcribe: {name}: {error}", file=sys.stderr)
            failed = True
            continue
        found = {
            "file": name,
            **recognized,
            "start": 0.0,
            "end": round(len(samples) / rate, 3),
            "processing_seconds": round(time.perf_counter() - start, 3),
        }
        if args.format == "json":
            print(json.dumps(found, ensure_ascii=False), flush=True)
        else:
            print(f"{name} {found['text']}" if len(names) > 1 else found["text"], flush=True)
    return int(failed)


def _names(given: Sequence[str]) -> Iterator[str]:
    for name in given:
        if name == "-":
            yield from filter(None, (line.strip() for line in sys.stdin))
        else:
            yield name


def _recognize(recognizer: Any, samples: Any) -> dict[str, Any]:
    text, tokens, _, hypothesis = recognizer(samples)[0]
    return {"text": text or "", "tokens": tokens, "score": round(float(hypothesis.score), 4)}


def _stream(streaming: Any, samples: Any, rate: int, seconds: float) -> dict[str, Any]:
    step = max(1, round(seconds * rate))
    streaming.reset()
    for start in range(0, len(samples), step):
        streaming.accept(samples[start : start + step], is_last=start + step >= len(samples))
    return {
        "text": streaming.text(),
        "tokens": streaming.tokens(),
        "token_start": [round(t, 3) for t in streaming.token_seconds(rate)],
    }
