#!/usr/bin/env python3
"""The data stages of the recipes, for what ESPnet leaves to shell tools.

Each command reads Kaldi-style data folders (wav.scp, text, utt2spk) and writes such folders:

- ``perturb``: copies of a training folder at other speeds (stage 2);
- ``format``: audio checked and written as 16-bit WAV, one sampling rate (stage 3);
- ``filter``: too short, too long and empty utterances left out, with a count (stage 4).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import soundfile
import soxr
from tqdm import tqdm

from espnet_quant4.text_files import TextFileError, read_pairs

Table = dict[str, str]


def read_table(path: Path) -> Table:
    """Read ``key value...`` lines."""
    try:
        return {key: value for _, key, value in read_pairs(path)}
    except TextFileError as error:
        raise SystemExit(str(error)) from error
    except OSError as error:
        raise SystemExit(f"{path}: {error.strerror}; run the stage before this one") from error


def write_folder(folder: Path, tables: dict[str, Table]) -> None:
    """Write tables, sorted by key, and spk2utt."""
    folder.mkdir(parents=True, exist_ok=True)
    speakers: dict[str, list[str]] = {}
    for utterance in sorted(tables["utt2spk"]):
        speakers.setdefault(tables["utt2spk"][utterance], []).append(utterance)
    tables = {**tables, "spk2utt": {s: " ".join(utts) for s, utts in speakers.items()}}
    for name, table in tables.items():
        lines = "".join(f"{key} {table[key]}\n" for key in sorted(table))
        path = folder / name
        # What has not changed keeps its time, by which later stages know that they are done.
        if not path.is_file() or path.read_text(encoding="utf-8") != lines:
            path.write_text(lines, encoding="utf-8")


def read_folder(folder: Path, names: tuple[str, ...]) -> dict[str, Table]:
    """Read tables of a data folder and check that they have the same keys."""
    tables = {name: read_table(folder / name) for name in names}
    for name, table in tables.items():
        odd = set(table) ^ set(tables[names[0]])
        if odd:
            raise SystemExit(
                f"{folder}: {sorted(odd)[:3]} ({len(odd)} in all) not in both {names[0]} and {name}"
            )
    return tables


def read_audio(path: str, sampling_rate: int):
    """Read mono audio, float32; refuse another sampling rate, several channels, NaN."""
    try:
        audio, rate = soundfile.read(path, dtype="float32")
    except (OSError, soundfile.SoundFileError) as error:
        raise SystemExit(f"{path}: cannot be read as audio: {error}") from error
    if rate != sampling_rate or audio.ndim != 1:
        raise SystemExit(
            f"{path}: {rate} Hz, {1 if audio.ndim == 1 else audio.shape[1]} channel(s); this recipe's "
            f"models are for {sampling_rate} Hz mono. Convert it first (sox IN -r {sampling_rate} "
            "-c 1 OUT), or change fs here and frontend_conf: fs in the training configuration."
        )
    if not np.isfinite(audio).all():
        raise SystemExit(f"{path}: holds NaN or infinite samples; convert it anew or leave it out")
    return audio


def perturb(args: argparse.Namespace) -> None:
    """Add to a data folder its copies at other speeds; keys get the prefix ``spFACTOR-``."""
    tables = read_folder(args.source, ("wav.scp", "text", "utt2spk"))
    result: dict[str, Table] = {name: dict(table) for name, table in tables.items()}
    for factor in args.factors:
        if factor == 1:
            continue  # ESPnet's lists name it; the recordings themselves are in the result anyway
        prefix = f"sp{factor:g}-"
        folder = args.target / "audio" / f"sp{factor:g}"
        folder.mkdir(parents=True, exist_ok=True)
        for key, path in tqdm(tables["wav.scp"].items(), desc=f"speed {factor:g}"):
            output = folder / f"{key}.wav"
            if not output.exists():
                audio = read_audio(path, args.fs)
                audio = soxr.resample(audio, args.fs, args.fs / factor)
                write_audio(output, audio, args.fs)
            result["wav.scp"][prefix + key] = str(output.resolve())
            result["text"][prefix + key] = tables["text"][key]
            result["utt2spk"][prefix + key] = prefix + tables["utt2spk"][key]
    write_folder(args.target, result)


def write_audio(path: Path, audio, sampling_rate: int) -> None:
    """Write 16-bit WAV so that an interrupted run leaves no half file."""
    partial = path.with_suffix(".part")
    soundfile.write(partial, audio, sampling_rate, subtype="PCM_16", format="WAV")
    partial.rename(path)


def format_audio(args: argparse.Namespace) -> None:
    """Write every recording as 16-bit WAV, and its number of samples as utt2num_samples.

    Recordings in which every sample is zero are left out, with a count.
    """
    tables = read_folder(args.source, ("wav.scp", "text", "utt2spk"))
    folder = args.target / "audio"
    folder.mkdir(parents=True, exist_ok=True)
    samples: Table = {}
    silent = []
    for key, path in tqdm(tables["wav.scp"].items(), desc=f"format {args.source.name}"):
        output = folder / f"{key}.wav"
        if not output.exists():
            write_audio(output, read_audio(path, args.fs), args.fs)
        audio = read_audio(str(output), args.fs)
        if len(audio) and not audio.any():
            silent.append(key)
        samples[key] = str(len(audio))
        tables["wav.scp"][key] = str(output.resolve())
    if silent:
        print(f"{args.source.name}: left out {len(silent)} silent recordings, first {silent[0]}")
        for table in (*tables.values(), samples):
            for key in silent:
                del table[key]
    write_folder(args.target, {**tables, "utt2num_samples": samples})
    (args.target / "feats_type").write_text("raw\n")


def filter_utterances(args: argparse.Namespace) -> None:
    """Leave out what is too short, too long or has no text."""
    tables = read_folder(args.source, ("wav.scp", "text", "utt2spk", "utt2num_samples"))
    left_out = {"shorter": 0, "longer": 0, "without text": 0}
    keep = []
    for key, samples in tables["utt2num_samples"].items():
        seconds = int(samples) / args.fs
        if not tables["text"][key]:
            left_out["without text"] += 1
        elif seconds < args.min_seconds:
            left_out["shorter"] += 1
        elif seconds > args.max_seconds:
            left_out["longer"] += 1
        else:
            keep.append(key)
    if not keep:
        raise SystemExit(
            f"{args.source}: no utterance is left of {len(tables['text'])}: {left_out}"
        )
    write_folder(args.target, {n: {k: t[k] for k in keep} for n, t in tables.items()})
    (args.target / "feats_type").write_text("raw\n")
    print(
        f"{args.source.name}: kept {len(keep)} utterances; left out {left_out['shorter']} under "
        f"{args.min_seconds:g} s, {left_out['longer']} over {args.max_seconds:g} s, "
        f"{left_out['without text']} without text"
    )


def main() -> int:
    """Run a command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    for name, function in {
        "perturb": perturb,
        "format": format_audio,
        "filter": filter_utterances,
    }.items():
        command = commands.add_parser(name, help=function.__doc__)
        command.add_argument("source", type=Path, help="data folder to read")
        command.add_argument("target", type=Path, help="data folder to write")
        command.add_argument("--fs", type=int, required=True, help="sampling rate in Hz")
        command.set_defaults(run=function)
        if name == "perturb":
            command.add_argument("--factors", type=float, nargs="+", default=[0.9, 1.1])
        if name == "filter":
            command.add_argument("--min_seconds", type=float, default=0.2)
            command.add_argument("--max_seconds", type=float, default=20.0)
    args = parser.parse_args()
    args.run(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
