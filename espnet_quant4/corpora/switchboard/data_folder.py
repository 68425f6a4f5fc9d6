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
from espnet_quant4.corpora.switchboard.utterances import Utterance
from espnet_quant4.text_files import write_lines

SILENT = "utterances left out: their side's audio is the same value throughout"
BYTES_PER_SAMPLE = 2

# What is cut out of a side of a call: file to write, start and end in seconds; an end of None is
# the end of the audio.
Cut = tuple[Path, float, float | None]


def require_room(utterances: Iterable[Utterance], folder: Path, segments: bool = True) -> int:
    """Return how many bytes `write_audio` will write.

    Raises:
        CorpusError: if the disk has no room for them.
    """
    needed = 0.0
    for path, channels in _plan(utterances, folder, segments).items():
        seconds = read_header(path).seconds
        for cuts in channels.values():
            for target, start, end in cuts:
                if not target.exists():
                    needed += (seconds if end is None else end) - start
    size = round(needed * SAMPLING_RATE) * BYTES_PER_SAMPLE
    above = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(above).free
    if size > free:
        raise CorpusError(
            f"{folder}: {size / 1e9:.1f} GB of audio are to be written and {free / 1e9:.1f} GB are "
            "free. Make room, or choose another disk with --audio."
        )
    return size


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
        CorpusError: if the audio cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    work = list(_plan(utterances, folder, segments).items())
    with ThreadPoolExecutor(jobs) as pool:
        results = list(tqdm(pool.map(_write_call, work), total=len(work), desc="audio"))
    silent = {
        (path, channel)
        for (path, _), channels in zip(work, results, strict=True)
        for channel in channels
    }
    kept = []
    for each in utterances:
        if (each.audio, each.channel) in silent:
            findings.add(SILENT, each.name)
        else:
            kept.append(each)
    return kept


def _plan(
    utterances: Iterable[Utterance], folder: Path, segments: bool
) -> dict[Path, dict[int, list[Cut]]]:
    """Return what is cut out of each call's file, by channel."""
    plan: dict[Path, dict[int, list[Cut]]] = {}
    for each in utterances:
        channels = plan.setdefault(each.audio, {})
        if segments:
            channels[each.channel] = [(folder / f"{each.side}.wav", 0.0, None)]
        else:
            cut = folder / f"{each.name}.wav", each.start, each.end
            channels.setdefault(each.channel, []).append(cut)
    return plan


def _write_call(work: tuple[Path, dict[int, list[Cut]]]) -> list[int]:
    """Write the cuts of a call; return channels that are silent, of which nothing is written."""
    path, channels = work
    samples: np.ndarray | None = None
    silent = []
    for channel, cuts in channels.items():
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

    Without segments the last is not there, and the place of utterances in the calls, which scoring
    needs, is in ``call_segments``, in the form of ``segments``.

    Args:
        folder: Kaldi-style data folder; files of these names are replaced.
        utterances: what is in it.
        audio: where `write_audio` has put the files.
        segments: as given to `write_audio`.

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
    write_lines(
        folder / "spk2utt", [f"{name} {' '.join(speakers[name])}" for name in sorted(speakers)]
    )
    # What the other form of the folder has, a run before may have left.
    if segments:
        (folder / "call_segments").unlink(missing_ok=True)
        sides = {each.side: f"{each.side} {each.call} {SIDES[each.channel]}" for each in utterances}
        write_lines(folder / "reco2file_and_channel", [sides[name] for name in sorted(sides)])
    else:
        (folder / "segments").unlink()
        (folder / "reco2file_and_channel").unlink(missing_ok=True)
        rows = [f"{each.name} {each.side} {each.start} {each.end}" for each in utterances]
        write_lines(folder / "call_segments", rows)
