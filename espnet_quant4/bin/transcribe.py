"""``espnet-quant4 transcribe``: recognize recordings with an INT4 file."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from espnet_quant4.bin.command import TRACEBACK, describe, run_command

# What ends a line somewhere, by the lights of terminals, Python or Unicode.
_LINE_ENDS = re.compile("[\0\n\v\f\r\x1b-\x1e\x85\N{LINE SEPARATOR}\N{PARAGRAPH SEPARATOR}]")


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(prog="espnet-quant4 transcribe", description=__doc__)
    parser.add_argument("file", type=Path, help="made by espnet-quant4 convert")
    parser.add_argument(
        "audio", nargs="+", help="recordings; - reads names from standard input, one a line"
    )
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="a line a recording"
    )
    parser.add_argument("--beam_size", type=int, default=1, help="1: greedy")
    parser.add_argument("--channel", type=int, help="from 0; mixed where left out")
    parser.add_argument("--num_threads", type=int, help="default: PyTorch's")
    parser.add_argument(
        "--chunk_seconds", type=float, help="stream in chunks (unidirectional encoders)"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="say first, on standard error, what computes"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 1 where a recording failed."""
    parser = get_parser()
    args = parser.parse_args(arguments)
    for name in ("beam_size", "num_threads", "chunk_seconds"):
        value = getattr(args, name)
        if value is not None and not 0 < value < math.inf:
            parser.error(f"--{name} {value}: valid are finite numbers above 0")
    if args.chunk_seconds is not None and args.beam_size > 1:
        parser.error(
            f"--beam_size {args.beam_size} with --chunk_seconds: streaming searches greedily; leave "
            "one of the two out"
        )
    return transcribe(args)


def transcribe(args: argparse.Namespace) -> int:
    """Recognize and print, a line a recording; returns 1 where one of them failed.

    Raises:
        ValueError: for a file that cannot be loaded, and a model that cannot do what is asked for.
    """
    import torch
    from tqdm import tqdm

    if args.num_threads:
        torch.set_num_threads(args.num_threads)
    recognize = _recognizer(args)
    known = None if "-" in args.audio else len(args.audio)
    named = known is None or known > 1
    failed = False
    shown = tqdm(
        _names(args.audio),
        total=known,
        unit="file",
        disable=not named or not sys.stderr.isatty(),
    )
    for name in shown:
        line = _line(name, recognize, args.format, named)
        # Without the bar in between, where both go to one terminal.
        with tqdm.external_write_mode():
            if line is not None:
                print(line, flush=True)
        failed = failed or line is None
    return int(failed)


Recognize = Callable[[str], dict[str, Any]]


def _recognizer(args: argparse.Namespace) -> Recognize:
    """Load the file; return what recognizes a recording."""
    from espnet_quant4.int4.audio import read_audio, sampling_rate_of
    from espnet_quant4.int4.model_file import load
    from espnet_quant4.int4.recognition import check_frontend, is_ctc_alone, recognize
    from espnet_quant4.int4.running_path import describe_path
    from espnet_quant4.int4.streaming import StreamingRecognizer
    from espnet_quant4.int4.transcript import Transcript

    recognizer = load(args.file, beam_size=args.beam_size, ctc_weight=0.0)
    if is_ctc_alone(recognizer.asr_model):
        recognizer = load(args.file, beam_size=args.beam_size, ctc_weight=1.0)
    check_frontend(recognizer.asr_model)
    if args.verbose:
        path = describe_path(recognizer.asr_model)
        print(f"espnet-quant4 transcribe: {path}", file=sys.stderr, flush=True)
    streaming = None if args.chunk_seconds is None else StreamingRecognizer(recognizer)
    rate = sampling_rate_of(recognizer.asr_train_args.frontend_conf)

    def recognize_file(name: str) -> dict[str, Any]:
        start = time.perf_counter()
        samples = read_audio(name, rate, args.channel)
        found: Transcript
        if streaming is None:
            found = recognize(recognizer, samples, rate)
        else:
            found = _stream(streaming, samples, rate, args.chunk_seconds)
        fields = dataclasses.asdict(found)
        # JSON knows no infinity.
        fields["score"] = round(found.score, 4) if math.isfinite(found.score) else None
        return {
            "file": name,
            **fields,
            "start": 0.0,
            "end": round(len(samples) / rate, 3),
            "processing_seconds": round(time.perf_counter() - start, 3),
        }

    return recognize_file


def _stream(streaming: Any, samples: Any, rate: int, seconds: float) -> Any:
    step = max(1, min(len(samples), round(seconds * rate)))
    streaming.reset()
    for start in range(0, len(samples), step):
        streaming.accept(samples[start : start + step], is_last=start + step >= len(samples))
    return streaming.transcript(rate)


def _line(name: str, recognize: Recognize, format_: str, named: bool) -> str | None:
    """Return the line of a recording; None, and a line on standard error, where it failed."""
    from espnet_quant4.int4.audio import AudioError

    try:
        found = recognize(name)
    except Exception as error:
        # Whatever is wrong with one recording, the others are still to be recognized.
        if os.environ.get(TRACEBACK, "") not in ("", "0"):
            raise
        what = describe(error)
        if not isinstance(error, (ValueError, OSError)):
            what = f"{type(error).__name__}: {what}"
        message = what if isinstance(error, AudioError) else f"{name}: {what}"
        print(f"espnet-quant4 transcribe: {one_line(message)}", file=sys.stderr, flush=True)
        return None
    if format_ == "json":
        return json.dumps(found, ensure_ascii=False)
    return one_line(f"{name} {found['text']}" if named else found["text"])


def one_line(text: str) -> str:
    """Return a text with its line ends as escapes, such as ``\\n``."""
    return _LINE_ENDS.sub(lambda found: repr(found[0])[1:-1], text)


def _names(given: Sequence[str]) -> Iterator[str]:
    """Yield names; those of standard input as they come, since who writes them may wait for results."""
    for name in given:
        if name != "-":
            yield name
            continue
        # Bytes: a name need not be text.
        lines: Any = getattr(sys.stdin, "buffer", sys.stdin)
        while line := lines.readline():
            found = os.fsdecode(line).removeprefix("\ufeff").rstrip("\r\n")
            if found.strip():
                yield found


if __name__ == "__main__":
    sys.exit(run_command("transcribe", main))
