"""Scores of Hub5 tests such as eval2000, as NIST counts them: by ``hubscr.pl`` of ``sctk``.

``hubscr.pl`` applies the global map (GLM) of the test to the reference (STM) and to the hypothesis
(CTM), hands each recognized word to the segment in whose time it lies, and lets ``sclite`` align.
A word in a gap between segments is an insertion in the segment that follows, or in the last one.

Before that, words are removed from the hypothesis that the reference has in parentheses only, for
``sclite`` counts them as correct where they are absent, and as wrong where they are misplaced: the
same rules as in ``local/score_sclite.sh`` of Kaldi's and ESPnet's Switchboard recipes.  Acronyms
become letters again, as in Kaldi's.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from espnet_quant4.report.ctm import CtmWord, Segment, format_ctm, spread, to_ctm
from espnet_quant4.report.scoring import Counts, ScoringError
from espnet_quant4.report.sctk import DEBIAN, find_program
from espnet_quant4.report.stm import Stm, StmSegment
from espnet_quant4.text_files import read_text, write_text

# Parts of a test with what the names of their calls begin with.
EVAL2000 = {"Switchboard": "sw_", "CallHome": "en_"}

# Wherever in a word, as in the published recipes: [laughter-yeah] goes as a whole.
_NOISE = re.compile(r"\[noise|laughter|vocalized-noise\]|<unk>", re.IGNORECASE)
# What eval2000's GLM maps to %HESITATION.
HESITATIONS = frozenset(
    ["UH", "UM", "EH", "MM", "HM", "AH", "HUH", "HA", "ER", "OOF", "HEE", "ACH", "EEE", "EW"]
)
# Written as in Fisher's transcripts: i._b._m., b._b._c.'s, t._v.s
_ACRONYM = re.compile(r"((?:[a-z]\._)*[a-z])\.((?:'?s)?)", re.IGNORECASE)
# The last letter of a plural as ESPnet's recipe trains it: v c rs. After other words too, since "cs"
# is nothing else; "as", "is" and "us" are, "ms" and "vs" only where a letter stands before them.
_PLURAL = re.compile(r"[b-hj-tv-z]s", re.IGNORECASE)
_PLURALS_BY_CONTEXT = ("ms", "vs")
# Letters that are words.
_WORDS_OF_ONE_LETTER = ("a", "i", "o")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
# What means something to hubscr.pl: optional words, alternatives, the empty word.
_MARKUP = re.compile(r"[(){}/@;]")

REMOVED = ("noise", "hesitations", "partial_words")

_SUM = re.compile(r"^\s*\|\s*Sum\s*\|\s*(\d+)\s+(\d+)\s*\|" + r"\s*(\d+)" * 6 + r"\s*\|\s*$", re.M)

COLUMNS = {
    "part": "Part",
    "wer": "WER %",
    "words": "Words",
    "correct": "Corr",
    "substitutions": "Sub",
    "deletions": "Del",
    "insertions": "Ins",
    "segments": "Segments",
    "wrong_segments": "Wrong",
}


def find_hubscr() -> str:
    """Return the path of ``hubscr.pl``; ``sclite`` and its filters are beside it.

    Raises:
        FileNotFoundError: where it is not installed.
    """
    program = find_program("hubscr.pl")
    if program is None:
        raise FileNotFoundError(
            f"hubscr.pl is neither in PATH nor in {DEBIAN}. Install sctk (Debian: apt-get install "
            "sctk), or put the folder bin of a built sctk into PATH."
        )
    return program


def place(
    hypotheses: Mapping[str, Sequence[str]],
    segments: Mapping[str, Segment],
    stm: Stm,
    where: str = "hypotheses",
) -> list[CtmWord]:
    """Give words times within the time of their utterance that the reference has segments in.

    Recipes widen segments by 0.1 s of silence before recognition.  Words spread over that silence
    too would fall into the gaps and be counted in other segments, so they are spread from the
    start of the first reference segment that an utterance meets to the end of the last.

    Args:
        hypotheses: words of each utterance.
        segments: of these utterances, and of no others that the reference scores.
        stm: the reference.
        where: names the hypotheses in messages.

    Raises:
        ScoringError: for an utterance without segment, or one whose time is scored and which has
            no hypothesis.
    """
    to_ctm({name: [] for name in hypotheses}, segments, where)
    met = _met(segments, stm)
    missing = [
        name for name in segments.keys() - hypotheses.keys() if any(s.scored for s in met[name])
    ]
    if missing:
        few = ", ".join(sorted(missing)[:3])
        raise ScoringError(
            f"{where}: no hypothesis for {len(missing)} of {len(segments)} segments, such as {few}. "
            "Decode the rest; a line with the utterance alone counts its words as deleted."
        )
    return [
        word
        for name, words in hypotheses.items()
        for word in spread(words, _within(segments[name], met[name]))
    ]


def unmatched(segments: Mapping[str, Segment], stm: Stm) -> list[str]:
    """Return the utterances whose time shares nothing with the reference's segments."""
    return [name for name, met in _met(segments, stm).items() if not met]


def filter_words(words: Iterable[CtmWord]) -> tuple[list[CtmWord], Counter[str]]:
    """Remove what is not scored, and write acronyms as letters and plurals as references do.

    Acronyms: ``i._b._m.`` becomes ``i b m``, ``v._c._r.s`` and ``v c rs`` become ``v c r's``.

    Returns:
        The words left, by side and time, and how many were removed as each of `REMOVED`.

    Raises:
        ScoringError: for a word that ``hubscr.pl`` would read as markup.
    """
    kept: list[CtmWord] = []
    removed = Counter(dict.fromkeys(REMOVED, 0))
    for word in sorted(words, key=lambda word: (word.call, word.channel, word.start)):
        kind = _removed_as(word.word)
        if kind is not None:
            removed[kind] += 1
        elif _MARKUP.search(word.word):
            raise ScoringError(
                f"{word.call} {word.channel} at {word.start:.3f} s: hubscr.pl would read the word "
                f"{word.word!r} as markup, for one of ( ) {{ }} / @ ; is in it; normalize the text"
            )
        else:
            kept += _letters(word, kept[-2:])
    return kept, removed


def split_parts(stm: Stm, parts: Mapping[str, str]) -> dict[str, list[StmSegment]]:
    """Sort a reference's segments into parts, by what the names of their calls begin with.

    Raises:
        ScoringError: where a call belongs to no part or to more than one, or a part has nothing
            that is scored.
    """
    known = ", ".join(f"{name} ({prefix}...)" for name, prefix in parts.items())
    step = "Name the test's parts with --parts NAME=PREFIX ..."
    found: dict[str, list[StmSegment]] = {name: [] for name in parts}
    for segment in stm.segments:
        owners = [name for name, prefix in parts.items() if segment.call.startswith(prefix)]
        if len(owners) != 1:
            which = "none" if not owners else " and ".join(owners)
            raise ScoringError(
                f"STM: call {segment.call} belongs to {which} of the parts {known}. {step}"
            )
        found[owners[0]].append(segment)
    for name, of_part in found.items():
        if not any(segment.scored for segment in of_part):
            raise ScoringError(
                f"STM: no segment of part {name} ({parts[name]}...) is scored; parts: {known}. "
                f"{step}"
            )
    return found


def score_hub5(
    stm: Stm,
    glm: Path,
    words: Sequence[CtmWord],
    output: Path,
    parts: Mapping[str, str] = EVAL2000,
) -> list[dict[str, Any]]:
    """Score each part and all of them together, each in a folder of its own.

    A folder holds ``ref.stm``, ``hyp.ctm``, ``glm``, ``hubscr.log`` and ``sclite``'s reports
    ``hyp.ctm.filt.*``.

    Args:
        stm: the reference; see `espnet_quant4.report.stm.read_stm`.
        glm: the test's global map.
        words: hypothesis, not yet filtered.
        output: folder.
        parts: name of each part with the prefix of its calls.

    Returns:
        An entry for each part; where there are several, also ``All`` (all words together) and
        ``Average`` (mean of the parts' error rates, without counts).

    Raises:
        ScoringError: where parts, calls or words do not fit, or ``hubscr.pl`` fails.
        FileNotFoundError: where ``hubscr.pl`` or the GLM is missing.
    """
    program = find_hubscr()
    if not glm.exists():
        raise FileNotFoundError(
            f"{glm}: no such GLM; eval2000's is en20000405_hub5.glm (LDC2002T43)"
        )
    by_part = split_parts(stm, parts)
    _check_calls(words, stm)
    jobs = {
        name: (segments, [word for word in words if word.call.startswith(parts[name])])
        for name, segments in by_part.items()
    }
    if len(parts) > 1:
        jobs["All"] = (list(stm.segments), list(words))
    counts: dict[str, Counts] = {}
    rows: list[dict[str, Any]] = []
    for name, (segments, of_part) in jobs.items():
        kept, removed = filter_words(of_part)
        part = Stm(stm.comments, tuple(segments), Counter())
        counts[name] = run_hubscr(output / name.lower(), part, glm, kept, program)
        rows.append(_row(name, counts[name], removed))
    if len(parts) > 1:
        together = sum((counts[name] for name in parts), Counts())
        if together != counts["All"]:
            raise ScoringError(
                f"{output}: the parts add up to {together}, hubscr.pl counts {counts['All']} in all"
            )
        average = sum(counts[name].error_rate for name in parts) / len(parts)
        rows.append({**dict.fromkeys(rows[0]), "part": "Average", "wer": round(average, 2)})
    return rows


def run_hubscr(folder: Path, stm: Stm, glm: Path, words: Iterable[CtmWord], program: str) -> Counts:
    """Run ``hubscr.pl`` in a folder and return ``sclite``'s totals; a sentence is a segment.

    Raises:
        ScoringError: where it fails, counts no reference word, or the GLM has no rule.
    """
    if folder.is_dir():
        # Reports of an earlier run are none of a run that fails.
        for report in folder.glob("hyp.ctm.filt*"):
            report.unlink()
    texts = {"ref.stm": stm.format(), "hyp.ctm": format_ctm(words)}
    texts["glm"] = read_text(glm, "latin-1")
    if "=>" not in texts["glm"]:
        raise ScoringError(
            f"{glm}: no rule in it, such as [UM] => [%HESITATION]; hubscr.pl needs one"
        )
    for name, text in texts.items():
        # hubscr.pl and sclite ignore the case of ASCII letters only.
        write_text(folder / name, _NOT_ASCII.sub(lambda match: match[0].upper(), text))
    # hubscr.pl hands names to a shell: run beside the files, so that no folder's name matters.
    # -V: the validators refuse even eval2000's own STM.
    command = [program, "-p", str(Path(program).parent), "-V", "-l", "english", "-h", "hub5"]
    command += ["-g", "glm", "-r", "ref.stm", "hyp.ctm"]
    done = subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    (folder / "hubscr.log").write_text(done.stdout, encoding="utf-8")
    raw = folder / "hyp.ctm.filt.raw"
    sums = _SUM.findall(raw.read_text(encoding="utf-8", errors="replace")) if raw.is_file() else []
    if done.returncode or not sums:
        raise ScoringError(
            f"{folder}/hubscr.log: hubscr.pl ended with status {done.returncode} and "
            f"{len(sums)} totals: {' '.join(done.stdout.split())[-300:]}"
        )
    sentences, total, correct, substitutions, deletions, insertions, _, wrong = map(int, sums[-1])
    if not total:
        raise ScoringError(f"{folder}/ref.stm: no reference word is scored")
    return Counts(
        sentences=sentences,
        words=total,
        correct=correct,
        substitutions=substitutions,
        deletions=deletions,
        insertions=insertions,
        wrong_sentences=wrong,
    )


def _removed_as(word: str) -> str | None:
    """Return what a word is left out as; None: it is scored."""
    if _NOISE.search(word):
        return "noise"
    if word.upper() in HESITATIONS:
        return "hesitations"
    return "partial_words" if word.endswith("-") else None


def _letters(word: CtmWord, before: Sequence[CtmWord]) -> list[CtmWord]:
    """Cut an acronym into letters that share its time; any other word stays.

    Args:
        word: to cut.
        before: the last words before it, of this side or another.
    """
    match = _ACRONYM.fullmatch(word.word)
    if match is None:
        same = [w.word for w in before if (w.call, w.channel) == (word.call, word.channel)]
        if _PLURAL.fullmatch(word.word) and (
            word.word.lower() not in _PLURALS_BY_CONTEXT or _ends_in_letter(same)
        ):
            return [replace(word, word=f"{word.word[0]}'s")]
        return [word]
    letters = match[1].split("._")
    if match[2]:
        letters[-1] += "'s"
    return spread(letters, Segment(word.call, word.channel, word.start, word.start + word.duration))


def _ends_in_letter(words: Sequence[str]) -> bool:
    """Return whether a spelled letter is last; ``a``, ``i`` and ``o`` are so behind others only."""
    if not words or len(words[-1]) != 1 or not words[-1].isalpha():
        return False
    return words[-1].lower() not in _WORDS_OF_ONE_LETTER or _ends_in_letter(words[:-1])


def _met(segments: Mapping[str, Segment], stm: Stm) -> dict[str, list[StmSegment]]:
    """Return the reference segments that share time with each segment."""
    by_side: dict[tuple[str, str], list[StmSegment]] = {}
    for reference in stm.segments:
        by_side.setdefault((reference.call, reference.channel), []).append(reference)
    return {
        name: [
            reference
            for reference in by_side.get((segment.call, segment.channel), ())
            if reference.start < segment.end and segment.start < reference.end
        ]
        for name, segment in segments.items()
    }


def _within(segment: Segment, met: Sequence[StmSegment]) -> Segment:
    """Cut silence off both ends of a segment: what lies outside the reference segments it meets."""
    if not met:
        return segment
    start = max(segment.start, min(reference.start for reference in met))
    end = min(segment.end, max(reference.end for reference in met))
    return Segment(segment.call, segment.channel, start, end)


def _check_calls(words: Iterable[CtmWord], stm: Stm) -> None:
    """Refuse words of a channel without reference: ``sclite`` breaks off at one, or skips it."""
    known = {(segment.call, segment.channel) for segment in stm.segments}
    unknown = {(word.call, word.channel) for word in words} - known
    if unknown:
        few = ", ".join(" ".join(side) for side in sorted(unknown)[:3])
        raise ScoringError(
            f"words in {len(unknown)} channel(s) that the STM has no segment of, such as {few}; it "
            f"has {len(known)}, such as {' '.join(min(known))}. STM and segments must be of one "
            "test and name its calls and channels alike."
        )


def _row(name: str, counts: Counts, removed: Mapping[str, int]) -> dict[str, Any]:
    return {
        "part": name,
        "wer": round(counts.error_rate, 2),
        "words": counts.words,
        "correct": counts.correct,
        "substitutions": counts.substitutions,
        "deletions": counts.deletions,
        "insertions": counts.insertions,
        "segments": counts.sentences,
        "wrong_segments": counts.wrong_sentences,
        **{f"removed_{kind}": number for kind, number in removed.items()},
    }
