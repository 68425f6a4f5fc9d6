"""Kaldi-style data folders, with audio as plain files.

lhotse's ``export_to_kaldi`` writes ``sph2pipe ... | ffmpeg ... |`` for a two-channel SPHERE file.
Each side of a call is therefore written as a mono WAV file first, read through libsndfile; of such
files lhotse's export needs no pipe, and neither do Kaldi, sox or ESPnet.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from espnet_quant4.corpora.switchboard.findings import CorpusError, Findings
from espnet_quant4.corpora.switchboard.segments import SIDES
from espnet_quant4.corpora.switchboard.sphere import (
    SAMPLING_RATE,
    read_channels,
    read_header,
)
from espnet_quant4.corpora.switchboard.utterances import Utterance, side_name

SILENT = "utterances left out: their side's audio is the same value throughout"
BYTES_PER_SAMPLE = 2

# A call's file, its channel, and what is cut out of it: (file to write, start, end) in seconds;
# an end of None is the end of the audio.
Cut = tuple[Path, float, float | None]


def write_audio(
    utterances: Sequence[Utterance],
    folder: Path,
    findings: Findings,
    segments: bool = True,
    jobs: int = 1,
) -> list[Utterance]:
    """Write 16-bit mono WAV files of sides, ``SIDE.wav``, or of utterances, ``NAME.wav``.

    Files that are there already stay.

    Args:
        utterances: whose audio is written.
        folder: for the files.
        findings: where `SILENT` is counted.
        segments: True: a file for each side; False: one for each utterance.
        jobs: calls at a time.  Threads: libsndfile and sph2pipe do the work.

    Returns:
        The utterances whose side is not silent.

    Raises:
        CorpusError: if the audio cannot be read, or the disk has no room.
    """
    cuts: dict[tuple[Path, int], list[Cut]] = {}
    sides = {}
    for each in utterances:
        key = (each.audio, each.channel)
        sides[key] = each.side
        if segments:
            cuts[key] = [(folder / f"{each.side}.wav", 0.0, None)]
        else:
            cut = folder / f"{each.name}.wav", each.start, each.end
            cuts.setdefault(key, []).append(cut)
    by_file: dict[Path, list[tuple[int, list[Cut]]]] = {}
    for (path, channel), every in cuts.items():
        by_file.setdefault(path, []).append((channel, every))
    _require_room(by_file, folder)
    folder.mkdir(parents=True, exist_ok=True)
    silent: set[tuple[Path, int]] = set()
    work = list(by_file.items())
    with ThreadPoolExecutor(jobs) as pool:
        results = list(tqdm(pool.map(_write_call, work), total=len(work), desc="audio"))
    for (path, _), channels in zip(work, results, strict=True):
        silent.update((path, channel) for channel in channels)
    kept = []
    for each in utterances:
        if (each.audio, each.channel) in silent:
            findings.add(SILENT, each.name)
        else:
            kept.append(each)
    return kept


def _require_room(files: dict[Path, list[tuple[int, list[Cut]]]], folder: Path) -> None:
    """Refuse to begin what the disk has no room for."""
    needed = 0.0
    for path, channels in files.items():
        seconds = read_header(path).seconds
        for _, cuts in channels:
            for target, start, end in cuts:
                if not target.exists():
                    needed += (seconds if end is None else end) - start
    needed *= SAMPLING_RATE * BYTES_PER_SAMPLE
    above = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(above).free
    if needed > free:
        raise CorpusError(
            f"{folder}: {needed / 1e9:.1f} GB of audio are to be written and {free / 1e9:.1f} GB are "
            "free. Make room, or choose another disk with --audio."
        )


def _write_call(work: tuple[Path, list[tuple[int, list[Cut]]]]) -> list[int]:
    """Write the cuts of a call; return channels that are silent, of which nothing is written."""
    path, channels = work
    samples: np.ndarray | None = None
    silent = []
    for channel, cuts in channels:
        if all(target.exists() for target, _, _ in cuts):
            continue
        if samples is None:
            samples = read_channels(path)
        side = samples[:, channel]
        if not side.size or np.ptp(side) == 0:
            silent.append(channel)
            continue
        for target, start, end in cuts:
            last = None if end is None else round(end * SAMPLING_RATE)
            part = target.with_name(target.name + ".part")
            # Renamed when it is whole, so that an interrupted run leaves no half file.
            soundfile.write(
                part,
                side[round(start * SAMPLING_RATE) : last],
                SAMPLING_RATE,
                format="WAV",
                subtype="PCM_16",
            )
            part.rename(target)
    return silent


def write_data_folder(
    folder: Path, utterances: Iterable[Utterance], audio: Path, segments: bool = True
) -> None:
    """Write wav.scp, segments, text, utt2spk, spk2utt, reco2dur, utt2dur, reco2file_and_channel.

    Args:
        folder: Kaldi-style data folder; files of these names are replaced.
        utterances: what is in it.
        audio: where `write_audio` has put the files.
        segments: as given to `write_audio`.  False: recordings are utterances; their place in the
            calls, which scoring needs, is in ``call_segments`` instead of ``segments``.

    Raises:
        CorpusError: if there is no utterance.
    """
    from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet
    from lhotse.kaldi import export_to_kaldi

    utterances = sorted(utterances, key=lambda each: each.name)
    if not utterances:
        raise CorpusError(f"{folder}: no utterance is left for it; see what was left out and why.")
    files = {each.side if segments else each.name: each for each in utterances}
    recordings = []
    for name in sorted(files):
        path = (audio / f"{name}.wav").absolute()
        recordings.append(Recording.from_file(path, recording_id=name))
    supervisions = [
        SupervisionSegment(
            id=each.name,
            recording_id=each.side if segments else each.name,
            start=each.start if segments else 0.0,
            duration=round(each.end - each.start, 8),
            text=each.text,
            speaker=each.speaker,
        )
        for each in utterances
    ]
    folder.mkdir(parents=True, exist_ok=True)
    export_to_kaldi(
        RecordingSet.from_recordings(recordings), SupervisionSet.from_segments(supervisions), folder
    )
    speakers: dict[str, list[str]] = {}
    for each in utterances:
        speakers.setdefault(each.speaker, []).append(each.name)
    _write(folder / "spk2utt", [f"{name} {' '.join(speakers[name])}" for name in sorted(speakers)])
    calls = {each.side: each for each in utterances}
    _write(
        folder / "reco2file_and_channel",
        [f"{name} {calls[name].call} {SIDES[calls[name].channel]}" for name in sorted(calls)],
    )
    if not segments:
        (folder / "segments").unlink()
        _write(
            folder / "call_segments",
            [
                f"{each.name} {side_name(each.call, each.channel)} {each.start} {each.end}"
                for each in utterances
            ],
        )


def _write(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
