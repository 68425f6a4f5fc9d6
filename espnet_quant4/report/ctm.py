"""Hypotheses as NIST's CTM: one word a line, with its call, channel, start and duration.

``CALL CHANNEL START DURATION WORD``, times in seconds from the start of the call.  ESPnet's and
the hybrid system's searches give words without times.  ``hybrid-ctm`` finds those of the latter
by alignment; without it they are spread evenly over their segment, as ESPnet's ``trn2ctm.py``
does.  That is fair as long as they stay within the segment: ``sclite``
asks of a word only which segment its middle lies in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_quant4.report.scoring import ScoringError, refuse_second
from espnet_quant4.text_files import read_lines, read_pairs

# Kaldi's recipes name the recordings of a two-channel call so: sw_4390-A.
_SIDE = re.compile(r"(.+)[-_]([AB])")


@dataclass(frozen=True)
class Segment:
    """A stretch of one channel of a call; times in seconds."""

    call: str
    channel: str
    start: float
    end: float


@dataclass(frozen=True)
class CtmWord:
    """A recognized word; times in seconds."""

    call: str
    channel: str
    start: float
    duration: float
    word: str


def read_segments(path: Path, channels: Path | None = None) -> dict[str, Segment]:
    """Read a Kaldi-style ``segments``: ``utterance recording start end``.

    Args:
        path: the file.
        channels: Kaldi's ``reco2file_and_channel``: ``recording call channel``.  None: the file of
            that name beside ``path``; where there is none, recordings are named ``CALL-A`` or
            ``CALL_A``.

    Raises:
        ScoringError: for a malformed line, times that do not run forward, an utterance or a recording
            that is there twice, or a recording whose call and channel are not known.
        TextFileError: for what is no text in UTF-8.
        FileNotFoundError: where a file is missing.
    """
    beside = path.with_name("reco2file_and_channel")
    if channels is None and beside.is_file():
        channels = beside
    sides: dict[str, tuple[str, str]] = {}
    if channels is not None:
        seen: dict[str, int] = {}
        for number, row in _rows(channels, 3, "recording call channel"):
            refuse_second(seen, row[0], f"recording {row[0]}", channels, number)
            sides[row[0]] = row[1], row[2]
    found: dict[str, Segment] = {}
    lines: dict[str, int] = {}
    for number, (utterance, recording, *times) in _rows(path, 4, "utterance recording start end"):
        where = f"{path}:{number}"
        start, end = parse_times(times, where)
        if end <= start:
            raise ScoringError(
                f"{where}: {utterance} ends at {end:g} s, not after its start at {start:g} s; "
                "correct it or leave the utterance out"
            )
        refuse_second(lines, utterance, f"utterance {utterance}", path, number)
        call, channel = _side(recording, sides, channels, where)
        found[utterance] = Segment(call, channel, start, end)
    return found


def read_hypotheses(path: Path) -> dict[str, list[str]]:
    """Read a Kaldi-style ``text``: utterance and words, of which there may be none.

    Raises:
        TextFileError: for an utterance that stands twice, and what is no text in UTF-8.
        FileNotFoundError: where the file is missing.
    """
    return {utterance: text.split() for _, utterance, text in read_pairs(path)}


def spread(words: Sequence[str], segment: Segment) -> list[CtmWord]:
    """Give each word an equal share of a segment, to the millisecond and without gaps."""
    shares = len(words)
    length = segment.end - segment.start
    ends = (
        [round(segment.start + length * i / shares, 3) for i in range(shares + 1)] if words else []
    )
    return [
        CtmWord(segment.call, segment.channel, ends[i], round(ends[i + 1] - ends[i], 3), word)
        for i, word in enumerate(words)
    ]


def to_ctm(
    hypotheses: Mapping[str, Sequence[str]],
    segments: Mapping[str, Segment],
    where: str = "hypotheses",
) -> list[CtmWord]:
    """Spread the words of each utterance over its segment.

    Args:
        hypotheses: words of each utterance.
        segments: of at least these utterances; see `read_segments`.
        where: names the hypotheses in messages.

    Raises:
        ScoringError: for an utterance without segment.
    """
    unknown = hypotheses.keys() - segments.keys()
    if unknown:
        few = ", ".join(sorted(unknown)[:3])
        raise ScoringError(
            f"{where}: {len(unknown)} utterance(s) have no line in segments, such as {few}. Take "
            "the segments of the data folder that was decoded."
        )
    return [
        word
        for utterance, words in hypotheses.items()
        for word in spread(words, segments[utterance])
    ]


def read_ctm(path: Path) -> list[CtmWord]:
    """Read a CTM file; comments (``;;``) and confidences are left out.

    Raises:
        ScoringError: for a malformed line, a word that starts before its call or ends before its
            start, one that is there twice, or a file without words.
        TextFileError: for what is no text in UTF-8.
        FileNotFoundError: where the file is missing.
    """
    words = []
    lines: dict[CtmWord, int] = {}
    for number, row in _rows(path, 5, "call channel start duration word [confidence]", optional=1):
        start, duration = parse_times(row[2:4], f"{path}:{number}")
        if start < 0 or duration < 0:
            raise ScoringError(
                f"{path}:{number}: start {start:g} s, duration {duration:g} s: neither may be negative"
            )
        if len(row) == 6 and row[5] != "NA":
            _confidence(row[5], f"{path}:{number}")
        word = CtmWord(row[0], row[1], start, duration, row[4])
        # Words too short for the file's decimals may well be said twice.
        if duration > 0:
            refuse_second(lines, word, f"word {word.word!r} at {start:g} s", path, number)
        words.append(word)
    if not words:
        raise ScoringError(f"{path}: no word in it; valid is a line for each recognized word")
    return words


def format_ctm(words: Iterable[CtmWord]) -> str:
    """Return the text of a CTM file, sorted by call, channel and time."""
    ordered = sorted(words, key=lambda word: (word.call, word.channel, word.start))
    return "".join(
        f"{w.call} {w.channel} {w.start:.3f} {w.duration:.3f} {w.word}\n" for w in ordered
    )


def count_overlaps(segments: Iterable[Segment]) -> int:
    """Return how many segments start before an earlier one of their channel ends."""
    latest: dict[tuple[str, str], float] = {}
    number = 0
    for segment in sorted(segments, key=lambda segment: segment.start):
        side = segment.call, segment.channel
        number += segment.start < latest.get(side, segment.start)
        latest[side] = max(segment.end, latest.get(side, segment.end))
    return number


def _side(
    recording: str, sides: Mapping[str, tuple[str, str]], channels: Path | None, where: str
) -> tuple[str, str]:
    """Return call and channel of a recording."""
    if channels is not None:
        if recording not in sides:
            raise ScoringError(f"{where}: {channels} has no line for recording {recording}")
        return sides[recording]
    match = _SIDE.fullmatch(recording)
    if match is None:
        raise ScoringError(
            f"{where}: recording {recording} ends in neither -A, -B, _A nor _B. Give a "
            "reco2file_and_channel (recording call channel) with --channels or beside segments."
        )
    return match[1], match[2]


def _rows(path: Path, fields: int, form: str, optional: int = 0) -> Iterable[tuple[int, list[str]]]:
    """Yield number and fields of each line that is neither empty nor a comment."""
    for number, line in enumerate(read_lines(path), start=1):
        row = line.split()
        if not row or row[0].startswith(";;"):
            continue
        if not fields <= len(row) <= fields + optional:
            raise ScoringError(f"{path}:{number}: {line.strip()!r} is not '{form}'")
        yield number, row


def _confidence(text: str, where: str) -> None:
    try:
        float(text)
    except ValueError:
        raise ScoringError(
            f"{where}: confidence {text!r} is neither a number nor NA; a word has no blanks in it"
        ) from None


def parse_times(texts: Sequence[str], where: str) -> tuple[float, float]:
    """Return two times in seconds.

    Raises:
        ScoringError: where they are no finite numbers; begins with `where`.
    """
    try:
        first, second = map(float, texts)
    except ValueError:
        first = second = math.nan
    if not (math.isfinite(first) and math.isfinite(second)):
        raise ScoringError(f"{where}: times {' '.join(texts)!r} are not seconds")
    return first, second
