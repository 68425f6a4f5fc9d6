"""NIST's STM references: the segments of a call's channels with their transcripts.

``CALL CHANNEL SPEAKER START END [<LABELS>] WORDS...``, times in seconds; lines that begin with
``;;`` are comments, which also define the labels.  In transcripts, ``(word)`` may be left out
without an error, ``{ a / b }`` are alternatives (see `espnet_quant4.report.alternatives`), and a
segment of the single word ``IGNORE_TIME_SEGMENT_IN_SCORING`` takes what is recognized in it out of
the score.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from espnet_quant4.report.alternatives import parse_alternatives
from espnet_quant4.report.ctm import Segment, parse_times
from espnet_quant4.report.scoring import ScoringError, refuse_second
from espnet_quant4.text_files import read_lines

_LINE = re.compile(
    r"\s*(\S+)\s+(\S+)\s+(\S+)\s+(\S+)\s+(\S+)(?:\s+(<(?![BE]_ASIDE>)\S*>))?(?:\s+(.*?))?\s*",
    re.IGNORECASE,
)
_LABEL = re.compile(r';;\s*LABEL\s+"([^"]*)"', re.IGNORECASE)
_ASIDE = re.compile(r"<[BE]_ASIDE>", re.IGNORECASE)
_DOUBLED = re.compile(r"\({2,}|\){2,}")
# sclite crashes at parentheses around braces.
_OPTIONAL = re.compile(r"\([^(){}]+\)")


@dataclass(frozen=True)
class StmSegment(Segment):
    """A segment with its transcript.

    Attributes:
        speaker: its name.
        labels: such as ``O,sw``; empty where there are none.
        text: the transcript.
    """

    speaker: str
    labels: str
    text: str

    @property
    def scored(self) -> bool:
        """False where the segment takes no part in the score."""
        return not self.text.upper().startswith("IGNORE_TIME_SEGMENT_")

    def __str__(self) -> str:
        labels = [f"<{self.labels}>"] if self.labels else []
        return " ".join(
            [
                self.call,
                self.channel,
                self.speaker,
                f"{self.start:.3f}",
                f"{self.end:.3f}",
                *labels,
                self.text,
            ]
        )


@dataclass(frozen=True)
class Stm:
    """A reference.

    Attributes:
        comments: lines that begin with ``;;``.
        segments: in the order of the file.
        repairs: what was put right, with numbers of segments.
    """

    comments: tuple[str, ...]
    segments: tuple[StmSegment, ...]
    repairs: Counter[str]

    def format(self) -> str:
        """Return the text of a file."""
        return "".join(f"{line}\n" for line in (*self.comments, *map(str, self.segments)))


def read_stm(path: Path) -> Stm:
    """Read an STM file and repair what ``hubscr.pl`` stumbles over.

    As the published recipes do, ``<B_ASIDE>`` and ``<E_ASIDE>`` are left out and doubled
    parentheses become single ones: eval2000's file has both.  Labels that no comment defines are
    defined, since ``sclite`` breaks off its reports at one.

    Raises:
        ScoringError: for a malformed line, times that do not run forward, parentheses or braces that
            do not match, or a segment that is there twice; the message names file and line.
        TextFileError: for a folder or a binary file. What is no UTF-8 is read as Latin-1, in which
            the LDC's older files are, with a warning.
        FileNotFoundError: where the file is missing.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: no such STM; eval2000's is hub5e00.english.000405.stm (LDC2002T43)"
        )
    comments: list[str] = []
    segments: list[StmSegment] = []
    repairs: Counter[str] = Counter()
    lines: dict[tuple[str, str, str, float, float], int] = {}
    for number, line in enumerate(read_lines(path, "latin-1"), start=1):
        if line.lstrip().startswith(";;"):
            comments.append(line.strip())
        elif line.strip():
            one = _segment(line, f"{path}:{number}", repairs)
            key = one.call, one.channel, one.speaker, one.start, one.end
            what = f"the segment of {one.call} {one.channel} from {one.start:g} s"
            refuse_second(lines, key, what, path, number)
            segments.append(one)
    if not segments:
        raise ScoringError(f"{path}: no segment in it")
    header = _missing_labels(comments, segments)
    repairs["labels defined"] += sum(";; LABEL" in line for line in header)
    return Stm((*comments, *header), tuple(segments), +repairs)


def _segment(line: str, where: str, repairs: Counter[str]) -> StmSegment:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ScoringError(
            f"{where}: {line.strip()!r} is not 'call channel speaker start end [<labels>] words'"
        )
    call, channel, speaker, *times, labels, text = match.groups(default="")
    start, end = parse_times(times, where)
    if end <= start:
        raise ScoringError(
            f"{where}: the segment ends at {end:g} s, not after its start at {start:g} s; sclite "
            "would score it without a word. Correct it or leave it out."
        )
    repaired = " ".join(_ASIDE.sub(" ", text).split())
    repairs["segments without marks of asides"] += bool(_ASIDE.search(text))
    repairs["segments with single parentheses"] += bool(_DOUBLED.search(repaired))
    repaired = _DOUBLED.sub(lambda match: match[0][0], repaired)
    if set("()") & set(_OPTIONAL.sub("", repaired)):
        raise ScoringError(
            f"{where}: parentheses do not match, or stand around braces: {repaired!r}. Optional words "
            "are (word)."
        )
    try:
        parse_alternatives(repaired)
    except ScoringError as error:
        raise ScoringError(
            f"{where}: {error}. Alternatives are {{ word / other words }}; the empty one is @."
        ) from None
    return StmSegment(call, channel, start, end, speaker, labels[1:-1], repaired)


def _missing_labels(comments: list[str], segments: list[StmSegment]) -> list[str]:
    """Return comments that define the labels that are used without one."""
    defined = {match[1].lower() for line in comments if (match := _LABEL.match(line))}
    used = {label: None for segment in segments for label in segment.labels.split(",") if label}
    missing = [label for label in used if label.lower() not in defined]
    # Without any definition sclite's report by label fails even where no segment has a label.
    if not defined and not missing:
        missing = ["O"]
    lines = [f';; LABEL "{label}" "{label}" ""' for label in missing]
    if lines and not any(line.upper().startswith(";; CATEGORY") for line in comments):
        lines.insert(0, ';; CATEGORY "0" "" ""')
    return lines
