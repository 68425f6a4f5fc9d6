"""Segments of a side of a call, checked: which times can be used."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from espnet_quant4.corpora.switchboard.findings import Findings

# Sides of a call are channels 1 and 2 of its file.
SIDES = "AB"
# Annotators' times of neighbours may cross a little; seconds.
OVERLAP = 0.1

MALFORMED = "lines left out: not a segment with two times in seconds"
REVERSED = "segments left out: they do not end after they start"
OVERLAPPING = (
    f"segments left out: they start over {OVERLAP:g} s before the end of the one before them on "
    "the same side"
)
BEYOND = "segments left out: they start after the end of the audio"
CUT = "segments cut at the end of the audio"


@dataclass(frozen=True)
class Segment:
    """What is said on one side of a call; times in seconds."""

    name: str
    start: float
    end: float
    text: str


def parse_seconds(start: str, end: str) -> tuple[float, float] | None:
    """Return two times; None if they are no finite numbers."""
    try:
        times = float(start), float(end)
    except ValueError:
        return None
    return times if all(map(math.isfinite, times)) and times[0] >= 0 else None


def check_segments(
    segments: Iterable[Segment], seconds: float, findings: Findings
) -> list[Segment]:
    """Return the segments of one side that can be used, by start, and record the others.

    Args:
        segments: of one side of a call.
        seconds: duration of its audio.
        findings: where rules `REVERSED`, `OVERLAPPING`, `BEYOND` and `CUT` are counted.
    """
    kept: list[Segment] = []
    for segment in sorted(segments, key=lambda each: (each.start, each.end)):
        times = f"{segment.start:g} to {segment.end:g} s"
        if segment.end <= segment.start:
            findings.add(REVERSED, segment.name, times)
        elif segment.start >= seconds:
            findings.add(BEYOND, segment.name, f"{times}, audio {seconds:g} s")
        elif kept and segment.start < kept[-1].end - OVERLAP:
            findings.add(
                OVERLAPPING, segment.name, f"{times}, {kept[-1].name} ends {kept[-1].end:g}"
            )
        else:
            if segment.end > seconds:
                findings.add(CUT, segment.name, f"{times}, audio {seconds:g} s")
                segment = replace(segment, end=seconds)
            kept.append(segment)
    return kept
