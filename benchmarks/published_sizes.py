"""A training step of the paper's two models at their published sizes on the CPU: time and memory.

    python benchmarks/published_sizes.py                    # all: make bench-sizes
    python benchmarks/published_sizes.py --models rnnt --systems fp32 tailored --steps 5
    python benchmarks/published_sizes.py --steps 1 --seconds 1 --utterances 2     # a look

The models are those of egs/swbd/*/conf, on made-up utterances: forward, backward and optimizer. Systems
are schemes, and ``espnet``: the float model with ESPnet's own encoder, ``rnn``, on ``nn.LSTM``. Each
runs in a process of its own: ``peak_mb`` is the largest resident set, ``grown_mb`` what of it came
behind the imports. Prints a table and writes exp/bench/published_sizes.json: a list of objects with
``model``, ``system``, ``median_s``, ``grown_mb`` and more.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Nothing large is imported here: a child's largest resident set begins with that of its parent.

EGS = Path(__file__).resolve().parents[1] / "egs" / "swbd"
CONFIGS = {
    "rnnt": EGS / "asr1" / "conf" / "train_asr_fp32.yaml",
    "hybrid": EGS / "hybrid1" / "conf" / "train_hybrid_fp32.yaml",
}
SYSTEMS = ("espnet", "fp32", "naive", "tailored")
TOKENS = 46
STATES = 32000
MELS = 40
FRAMES_A_SECOND = 100
SAMPLES_A_SECOND = 8000
# Of conversational speech, blanks between words included.
CHARACTERS_A_SECOND = 12
# Of two frames with their differences, which ESPnet's own encoder is given: it does not stack them.
STACKED = 2 * 3 * MELS
COLUMNS = ("model", "system", "parameters", "median_s", "times_fp32", "grown_mb", "peak_mb")


def largest_resident_set() -> float:
    """Return the largest resident set of this process so far, in MB."""
    import resource

    # macOS counts bytes, Linux KB.
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def build(name: str, system: str, folder: Path) -> tuple[Any, Any]:
    """Return the model of a system, and its optimizer."""
    from espnet2.tasks.asr import ASRTask

    from espnet_quant4.hybrid.task import HybridTask

    options = ["--config", str(CONFIGS[name]), "--output_dir", str(folder), "--normalize", "none"]
    if system == "espnet":
        options += ["--encoder", "rnn"]
    else:
        options += ["--model_conf", f"scheme={system}"]
    if name == "rnnt":
        tokens = ["<blank>", "<unk>", *(f"t{n}" for n in range(TOKENS - 3)), "<sos/eos>"]
        (folder / "tokens").write_text("".join(f"{token}\n" for token in tokens))
        options += ["--token_type", "char", "--token_list", str(folder / "tokens")]
        task = ASRTask
    else:
        options += ["--num_pdfs", str(STATES), "--input_size", str(MELS)]
        task = HybridTask
    args = task.get_parser().parse_args(options)
    if system == "espnet" and name == "rnnt":
        del args.encoder_conf["stack_frames"]
        args.preencoder, args.specaug, args.input_size = None, None, STACKED
    model = task.build_model(args).train()
    (optimizer,) = task.build_optimizers(args, model)
    return model, optimizer


def make_batch(name: str, system: str, utterances: int, seconds: float) -> dict[str, Any]:
    """Return a batch of made-up utterances, the shortest of 0.7 times the length."""
    import torch

    frames = max(2, round(FRAMES_A_SECOND * seconds))
    shares = torch.linspace(1.0, 0.7, utterances)
    lengths = (frames * shares).long().clamp_min(1)
    if name == "hybrid":
        return {
            "speech": torch.randn(utterances, frames, MELS),
            "speech_lengths": lengths,
            "pdf_ids": torch.randint(STATES, (utterances, frames)),
            "pdf_ids_lengths": lengths,
        }
    characters = (CHARACTERS_A_SECOND * seconds * shares).long().clamp_min(1)
    text = torch.randint(2, TOKENS - 1, (utterances, int(characters[0])))
    padding = torch.arange(text.size(1)) >= characters.unsqueeze(1)
    batch = {"text": text.masked_fill(padding, -1), "text_lengths": characters}
    if system == "espnet":
        steps = (lengths + 1) // 2
        speech = torch.randn(utterances, int(steps[0]), STACKED)
        return {**batch, "speech": speech, "speech_lengths": steps}
    samples = lengths * (SAMPLES_A_SECOND // FRAMES_A_SECOND)
    speech = torch.randn(utterances, int(samples[0]))
    return {**batch, "speech": speech, "speech_lengths": samples}


def measure(name: str, system: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train a system for some steps; return its row. One step before the first is not counted."""
    import warnings

    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    # With all that building imports, which is no part of the model's memory.
    for module in ("espnet2.tasks.asr", "espnet_quant4.hybrid.task"):
        importlib.import_module(module)
    before = largest_resident_set()
    with tempfile.TemporaryDirectory() as folder:
        model, optimizer = build(name, system, Path(folder))
    batches = [make_batch(name, system, args.utterances, args.seconds) for _ in range(2)]
    times = []
    for step in range(args.steps + 1):
        start = time.perf_counter()
        loss, _, _ = model(**batches[step % 2])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append(time.perf_counter() - start)
        print(f"  {name} {system}: step {step}/{args.steps}", file=sys.stderr, flush=True)
    del times[0]
    peak = largest_resident_set()
    return {
        "model": name,
        "system": system,
        "threads": args.threads,
        "utterances": args.utterances,
        "seconds": args.seconds,
        "steps": args.steps,
        "parameters": sum(p.numel() for n, p in model.named_parameters() if "quantizers" not in n),
        "median_s": statistics.median(times),
        "minimum_s": min(times),
        "maximum_s": max(times),
        "grown_mb": peak - before,
        "peak_mb": peak,
        "loss": loss.item(),
    }


def in_a_process(name: str, system: str, options: list[str]) -> dict[str, Any]:
    """Measure in a new process, whose progress is seen; return its row."""
    command = [sys.executable, __file__, *options, "--child", name, system]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(
            f"{name} {system}: ended with status {done.returncode}, -9 for want of memory; its "
            "message stands above. Fewer --utterances or --seconds take less."
        )
    return json.loads(done.stdout.splitlines()[-1])


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the rows' columns."""
    print(" ".join(f"{column:>10}" for column in COLUMNS))
    for row in rows:
        cells = (row.get(column, float("nan")) for column in COLUMNS)
        print(" ".join(f"{c:>10.2f}" if isinstance(c, float) else f"{c:>10}" for c in cells))


def get_parser() -> argparse.ArgumentParser:
    """Return the benchmark's parser."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=CONFIGS, default=list(CONFIGS))
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--utterances", type=int, default=8, help="of a batch")
    parser.add_argument("--seconds", type=float, default=5.0, help="of the longest utterance")
    parser.add_argument("--steps", type=int, default=5, help="that are timed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("exp/bench/published_sizes.json"))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = get_parser()
    args = parser.parse_args(arguments)
    for option in ("utterances", "seconds", "steps", "threads"):
        if getattr(args, option) <= 0:
            parser.error(f"--{option} {getattr(args, option)}: valid are numbers above 0")
    if args.child:
        print(json.dumps(measure(*args.child, args)))
        return 0
    options = [f"--{o}={getattr(args, o)}" for o in ("utterances", "seconds", "steps", "threads")]
    print(f"{args.utterances} utterances of {args.seconds} s, {args.threads} threads", flush=True)
    rows: list[dict[str, Any]] = []
    for name in args.models:
        for system in args.systems:
            rows.append(in_a_process(name, system, options))
            floats = {r["model"]: r["median_s"] for r in rows if r["system"] == "fp32"}
            for row in rows:
                if row["model"] in floats:
                    row["times_fp32"] = row["median_s"] / floats[row["model"]]
            args.output.parent.mkdir(parents=True, exist_ok=True)
            args.output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print_table(rows)
    print(f"written: {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
