"""Switchboard-1 release 2 (LDC97S62) with the transcripts of ISIP (Mississippi State, 1998-2003)."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from espnet_quant4.corpora.switchboard.calls import (
    NO_AUDIO,
    NO_TRANSCRIPT,
    Call,
    check_calls,
    find_files,
    link,
    require_most,
)
from espnet_quant4.corpora.switchboard.dictionary import (
    DICTIONARY,
    Entry,
    acronyms,
    lexicon,
    read_dictionary,
)
from espnet_quant4.corpora.switchboard.findings import (
    LDC_FALLBACK,
    CorpusError,
    Findings,
    require_folder,
)
from espnet_quant4.corpora.switchboard.normalize import normalize_swbd1
from espnet_quant4.corpora.switchboard.segments import (
    MALFORMED,
    SIDES,
    Segment,
    check_segments,
    parse_seconds,
)
from espnet_quant4.corpora.switchboard.sphere import lhotse_reads_sphere
from espnet_quant4.corpora.switchboard.utterances import (
    Utterance,
    collect,
    make_utterance,
    persons_of,
    true_channel,
)
from espnet_quant4.text_files import read_lines

TRANSCRIPTS = "swb_ms98_transcriptions"
TRANSCRIPTS_URL = (
    "http://www.isip.piconepress.com/projects/switchboard/releases/"
    "switchboard_word_alignments.tar.gz"
)
AUDIO_LAYOUT = "LDC97S62 has its calls as swb1_d*/data/sw0NNNN.sph."
TRANSCRIPT_LAYOUT = (
    f"The transcripts of ISIP are {TRANSCRIPTS}/NN/NNNN/swNNNNA-ms98-a-trans.text, from "
    f"{TRANSCRIPTS_URL} (--download_transcripts true fetches them)."
)
ONE_SIDE = "calls with a transcript of one side only; the other is not used"
UNKNOWN_SPEAKER = (
    "sides whose speaker the table of speakers does not tell; the side is taken for one"
)
NOT_IN_DICTIONARY = "words of the texts that the dictionary does not have"
# Releases differ in three calls.
EXPECTED_CALLS = (2435, 2438)


def read_speakers(path: Path) -> dict[str, str]:
    """Read ``conv_tab.csv`` of LDC97S62's documents: the call in column 1, callers A and B in 3 and 4.

    Returns:
        ``sw0NNNN-A`` -> ``swPERSON``.

    Raises:
        CorpusError: if the file is missing, or a line has no two persons' numbers or tells others of
            a call than an earlier one.
        TextFileError: if it is no text.
    """
    if not path.is_file():
        raise CorpusError(
            f"{path} is not there. The table of speakers is conv_tab.csv of "
            "https://catalog.ldc.upenn.edu/docs/LDC97S62/; without it a side counts as a speaker."
        )
    found: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(read_lines(path, LDC_FALLBACK), 1):
        fields = [field.strip().strip('"') for field in line.split(",")]
        if not line.strip():
            continue
        if len(fields) < 4 or not all(field.isdigit() for field in (fields[0], *fields[2:4])):
            raise CorpusError(
                f"{path}:{number}: {line!r} is not CALL,...,CALLER A,CALLER B,... in numbers"
            )
        first = lines.setdefault(fields[0], number)
        for side, person in zip(SIDES, fields[2:4], strict=True):
            if found.setdefault(f"sw0{fields[0]}-{side}", f"sw{person}") != f"sw{person}":
                raise CorpusError(
                    f"{path}:{number}: call {fields[0]} has other callers in line {first}. Remove "
                    "one of the two lines."
                )
    return found


def prepare_swbd1(
    audio: Path,
    transcripts: Path,
    findings: Findings,
    persons: Mapping[str, str] | None = None,
    noises: str = "keep",
    allow_incomplete: bool = False,
) -> tuple[list[Utterance], list[Entry]]:
    """Read Switchboard-1 by lhotse's ``prepare_switchboard``, and correct what that leaves wrong.

    lhotse names the speaker of either side ``...A``, leaves out each segment that begins with
    ``[silence]`` even if words follow, and keeps the transcripts' marks.

    Args:
        audio: LDC97S62.
        transcripts: ``swb_ms98_transcriptions``.
        findings: where all that is left out is counted.
        persons: who speaks on which side, see `read_speakers`; None: each side is a speaker.
        noises: see `normalize_swbd1`.
        allow_incomplete: go on where over a twentieth of the calls cannot be used.

    Returns:
        Utterances by side and time, and the entries of the dictionary.

    Raises:
        CorpusError: if a folder is missing or laid out otherwise, or too many calls are missing.
    """
    found = find_files([audio], r"sw0*(\d{4})\.sph", "Switchboard-1 audio", AUDIO_LAYOUT, findings)
    require_folder(transcripts, "Switchboard-1 transcripts", TRANSCRIPT_LAYOUT)
    entries = read_dictionary(_dictionary(transcripts))
    texts = find_files(
        [transcripts],
        r"sw(\d{4}[AB])-ms98-[ab]-trans\.text",
        "Switchboard-1 transcripts",
        TRANSCRIPT_LAYOUT,
        findings,
    )
    if len(found) not in EXPECTED_CALLS:
        findings.notes.append(
            f"{len(found)} calls; the whole corpus has {' or '.join(map(str, EXPECTED_CALLS))}"
        )
    calls, compressed = check_calls(_matched(found, texts, findings), findings)
    transcribed = {key[:-1] for key in texts}
    require_most(
        transcribed - {_key(call.name) for call in calls},
        len(transcribed),
        allow_incomplete,
        f"Copy all disks. {AUDIO_LAYOUT}",
        findings,
    )
    if not calls:
        raise CorpusError("Switchboard-1: no call has audio and transcripts. " + AUDIO_LAYOUT)
    with tempfile.TemporaryDirectory() as folder:
        supervisions = _read_by_lhotse(Path(folder), calls, texts, compressed, findings)
    letters = acronyms(entries)
    by_name = {f"sw0{_key(call.name)}": call for call in calls}
    utterances = [
        _utterance(each, by_name[each.recording_id], letters, persons or {}, noises)
        for each in supervisions
    ]
    if persons is None:
        findings.notes.append("each side of a call counts as a speaker (no table of speakers)")
    else:
        for side in sorted({each.side for each in utterances} - set(persons)):
            findings.add(UNKNOWN_SPEAKER, side)
    kept = collect(utterances, findings)
    _compare_with_lexicon(kept, entries, findings)
    return kept, entries


def _compare_with_lexicon(
    utterances: Iterable[Utterance], entries: list[Entry], findings: Findings
) -> None:
    """Record the words that texts and lexicon do not share, most frequent first."""
    known = {line.partition(" ")[0] for line in lexicon(entries)}
    unknown = Counter(
        word for each in utterances for word in each.text.split() if word not in known
    )
    for word, times in unknown.most_common():
        findings.add(NOT_IN_DICTIONARY, word, f"{times} times")


def _key(name: str) -> str:
    return name[-4:]


def _dictionary(transcripts: Path) -> Path:
    return next(iter(sorted(transcripts.rglob(DICTIONARY))), transcripts / DICTIONARY)


def _matched(
    audio: Mapping[str, Path], texts: Mapping[str, Path], findings: Findings
) -> dict[str, Path]:
    """Return the audio that has a transcript of a side, and record what does not match."""
    transcribed = {key[:-1] for key in texts}
    for call in sorted(transcribed - set(audio)):
        findings.add(NO_AUDIO, f"sw{call}")
    for call in sorted(set(audio) - transcribed):
        findings.add(NO_TRANSCRIPT, audio[call].name)
    matched = {call: path for call, path in audio.items() if call in transcribed}
    for call in matched:
        missing = [side for side in SIDES if f"{call}{side.lower()}" not in texts]
        if missing:
            findings.add(ONE_SIDE, f"sw{call}", f"no {missing[0]}")
    return matched


def _read_by_lhotse(
    folder: Path, calls: list[Call], texts: Mapping[str, Path], compressed: bool, findings: Findings
) -> Any:
    """Return the supervisions of sound calls, whose files are laid out in `folder`."""
    from lhotse.recipes.switchboard import prepare_switchboard

    for call in calls:
        key = _key(call.name)
        link(folder / "audio" / f"sw0{key}.sph", call.path)
        target = folder / "transcripts" / key
        target.mkdir(parents=True)
        for side in SIDES:
            source = texts.get(f"{key}{side.lower()}")
            segments = _read_transcript(source, findings) if source else []
            lines = [
                f"{each.name} {each.start!r} {each.end!r} {each.text}\n"
                for each in check_segments(segments, call.seconds, findings)
            ]
            name = f"sw{key}{side}-ms98-{side.lower()}-trans.text"
            (target / name).write_text("".join(lines), encoding="utf-8")
    if not any(path.stat().st_size for path in folder.rglob("*-trans.text")):
        raise CorpusError("Switchboard-1: no segment can be used. " + TRANSCRIPT_LAYOUT)
    with lhotse_reads_sphere(compressed):
        manifests = prepare_switchboard(
            folder / "audio", folder / "transcripts", omit_silence=False, absolute_paths=True
        )
    return list(manifests["supervisions"])


def _read_transcript(path: Path, findings: Findings) -> list[Segment]:
    """Read ``NAME START END WORDS...`` lines."""
    segments = []
    for number, line in enumerate(read_lines(path, LDC_FALLBACK), 1):
        name, *fields = line.split(maxsplit=3) or [""]
        times = parse_seconds(*fields[:2]) if len(fields) == 3 else None
        if times is not None:
            segments.append(Segment(name, *times, fields[2]))
        elif line.strip():
            findings.add(MALFORMED, f"{path.name}:{number}")
    return segments


def _utterance(
    supervision: Any,
    call: Call,
    letters: Mapping[str, str],
    persons: Mapping[str, str],
    noises: str,
) -> Utterance:
    name, channel = supervision.recording_id, true_channel(supervision)
    return make_utterance(
        name,
        channel,
        (supervision.start, supervision.end),
        normalize_swbd1(supervision.text, letters, noises),
        call.path,
        persons_of(persons, name, channel),
    )


def find_transcripts(folders: list[Path]) -> Path | None:
    """Return the folder of transcripts in or below one of `folders`, if there is one."""
    for folder in folders:
        if folder.name == TRANSCRIPTS and folder.is_dir():
            return folder
        for candidate in (folder / TRANSCRIPTS, folder / "LDC97S62" / TRANSCRIPTS):
            if candidate.is_dir():
                return candidate
    return None


def download_transcripts(folder: Path) -> Path:
    """Fetch and unpack the transcripts with lhotse into `folder`.

    Raises:
        CorpusError: if they cannot be fetched.
    """
    from lhotse.recipes.switchboard import download_and_untar

    try:
        return Path(download_and_untar(folder, url=TRANSCRIPTS_URL))
    except OSError as error:
        raise CorpusError(
            f"{TRANSCRIPTS_URL} cannot be fetched: {error}. Fetch and unpack it by hand and name "
            "the folder with --transcripts."
        ) from error
