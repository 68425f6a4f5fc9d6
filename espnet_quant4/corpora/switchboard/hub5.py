"""The evaluations: Hub5 2000 (LDC2002S09, LDC2002T43) and RT-03, telephone part (LDC2007S10).

The reference is the STM, which NIST scores with.  lhotse's ``prepare_eval2000`` reads the
transcripts beside it, whose segments and words are others; only what it calls to open audio is
used here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from espnet_quant4.corpora.switchboard.calls import NO_TRANSCRIPT, check_calls, find_files
from espnet_quant4.corpora.switchboard.findings import (
    LDC_FALLBACK,
    CorpusError,
    Findings,
    list_content,
    require_folder,
)
from espnet_quant4.corpora.switchboard.normalize import normalize_stm
from espnet_quant4.corpora.switchboard.segments import BEYOND, CUT, SIDES
from espnet_quant4.corpora.switchboard.utterances import Utterance, collect, make_utterance
from espnet_quant4.report.scoring import ScoringError
from espnet_quant4.report.stm import Stm, StmSegment, read_stm
from espnet_quant4.text_files import TextFileError, read_text

IGNORED = "segments left out: the STM takes them out of the score"
_CHANNELS = {"1": "A", "2": "B", "A": "A", "B": "B"}

EVAL2000_AUDIO = "LDC2002S09 has its calls as hub5e_00/english/{en,sw}_NNNN.sph."
EVAL2000_TEXT = (
    "LDC2002T43 has reference/hub5e00.english.000405.stm and reference/en20000405_hub5.glm, on "
    "some media below 2000_hub5_eng_eval_tr."
)
RT03_LAYOUT = (
    "LDC2007S10 has data/audio/eval03/english/cts/*.sph, data/references/eval03/english/cts/*.stm "
    "and data/trans_rules/en20030506.glm."
)


@dataclass(frozen=True)
class Evaluation:
    """An evaluation set.

    Attributes:
        utterances: what is decoded; by side and time.
        stm: the reference, channels named A and B.
        glm: NIST's rules for transcripts.
    """

    utterances: list[Utterance]
    stm: Stm
    glm: str


def prepare_eval2000(audio: Path, text: Path, findings: Findings) -> Evaluation:
    """Read Hub5 2000, of which the Switchboard part is ``sw_*`` and CallHome ``en_*``.

    Args:
        audio: LDC2002S09, or a folder of it.
        text: LDC2002T43, or a folder of it.
        findings: where all that is left out is counted.

    Raises:
        CorpusError: if files are missing or laid out otherwise, the STM has calls without audio, or
            is malformed.
    """
    found = find_files(
        [audio], r"((?:en|sw)_\d{4})\.sph", "Hub5 2000 audio", EVAL2000_AUDIO, findings
    )
    what = "Hub5 2000 transcripts"
    require_folder(text, what, EVAL2000_TEXT)
    stm = _one(text, ["hub5e00.english.000405.stm"], what, EVAL2000_TEXT)
    glm = _one(text, ["en20000405_hub5.glm"], what, EVAL2000_TEXT)
    return _evaluation("Hub5 2000", found, [stm], glm, findings)


def prepare_rt03(folder: Path, findings: Findings) -> Evaluation:
    """Read RT-03's conversational telephone speech in English; see `prepare_eval2000`."""
    require_folder(folder, "RT-03", RT03_LAYOUT)
    cts = Path("eval03", "english", "cts")
    audio = require_folder(folder / "data" / "audio" / cts, "RT-03 audio", RT03_LAYOUT)
    text = require_folder(folder / "data" / "references" / cts, "RT-03 references", RT03_LAYOUT)
    found = find_files([audio], r"([a-z]+_\d+)\.sph", "RT-03 audio", RT03_LAYOUT, findings)
    references = sorted(text.glob("*.stm"))
    if not references:
        raise CorpusError(f"RT-03: {text} holds {list_content(text)}, no *.stm. {RT03_LAYOUT}")
    glm = _one(folder, ["en20030506.glm"], "RT-03", RT03_LAYOUT)
    return _evaluation("RT-03", found, references, glm, findings)


def _one(folder: Path, names: list[str], what: str, layout: str) -> Path:
    for name in names:
        for path in sorted(folder.rglob(name)):
            return path
    raise CorpusError(
        f"{what}: {' or '.join(names)} is nowhere below {folder}, which holds "
        f"{list_content(folder)}. {layout}"
    )


def _evaluation(
    what: str, audio: dict[str, Path], references: Iterable[Path], glm: Path, findings: Findings
) -> Evaluation:
    stm = _read_references(what, references)
    used = {segment.call.lower() for segment in stm.segments}
    if missing := sorted(used - set(audio)):
        raise CorpusError(
            f"{what}: {len(missing)} call(s) of the STM have no audio, such as {missing[0]}. The set "
            "is scored as a whole; copy all of it."
        )
    for spare in sorted(set(audio) - used):
        findings.add(NO_TRANSCRIPT, audio[spare].name)
    calls, _ = check_calls({name: path for name, path in audio.items() if name in used}, findings)
    by_name = {call.name: call for call in calls}
    if unusable := sorted(used - set(by_name)):
        raise CorpusError(
            f"{what}: the audio of {', '.join(unusable)} cannot be used; the set is scored as a "
            "whole. Copy these files from the LDC's medium again: " + "; ".join(findings.lines())
        )
    utterances = []
    for segment in stm.segments:
        call = by_name[segment.call.lower()]
        name = f"{segment.call}-{segment.channel} {segment.start:g}"
        if not segment.scored:
            findings.add(IGNORED, name)
        elif segment.start >= call.seconds:
            findings.add(BEYOND, name, f"audio {call.seconds:g} s")
        else:
            if segment.end > call.seconds:
                findings.add(CUT, name, f"to {segment.end:g} s, audio {call.seconds:g} s")
            times = segment.start, min(segment.end, call.seconds)
            utterances.append(
                make_utterance(
                    segment.call,
                    SIDES.index(segment.channel),
                    times,
                    normalize_stm(segment.text),
                    call.path,
                )
            )
    return Evaluation(collect(utterances, findings), stm, read_text(glm, LDC_FALLBACK))


def _read_references(what: str, references: Iterable[Path]) -> Stm:
    try:
        parts = [read_stm(path) for path in references]
    except (ScoringError, TextFileError) as error:
        raise CorpusError(f"{what}: {error}") from error
    segments: list[StmSegment] = []
    for part in parts:
        for segment in part.segments:
            # Gaps between segments, which RT-03 lists, are no reference.
            if segment.speaker.lower() == "inter_segment_gap":
                continue
            if segment.channel.upper() not in _CHANNELS:
                raise CorpusError(
                    f"{what}: channel {segment.channel!r} of {segment.call} in the STM is none of "
                    f"{', '.join(_CHANNELS)}"
                )
            segments.append(replace(segment, channel=_CHANNELS[segment.channel.upper()]))
    comments = dict.fromkeys(line for part in parts for line in part.comments)
    return Stm(tuple(comments), tuple(segments), sum((part.repairs for part in parts), Counter()))
