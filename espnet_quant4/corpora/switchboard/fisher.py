"""Fisher English, parts 1 and 2 (LDC2004S13, LDC2005S13; transcripts LDC2004T19, LDC2005T19)."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Mapping
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
from espnet_quant4.corpora.switchboard.findings import LDC_FALLBACK, CorpusError, Findings
from espnet_quant4.corpora.switchboard.normalize import normalize_fisher
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
    true_channel,
)
from espnet_quant4.text_files import read_lines, write_lines

LAYOUT = (
    "Fisher has audio as LDC2004S13 and LDC2005S13 (audio/NNN/fe_03_NNNNN.sph), transcripts as "
    "LDC2004T19 and LDC2005T19 (data/trans/NNN/fe_03_NNNNN.txt, doc/*_calldata.tbl)."
)
UNSURE = "utterances left out: the transcriber was not sure of all words, ((...))"
NO_SESSION = "calls left out: the tables of calls (calldata.tbl) do not have them"
NO_PERSON = "sides whose speaker the tables of calls do not tell; the side is taken for one"
# Columns of calldata.tbl: call, and the callers' personal numbers.
_CALL, _PERSON_A, _PERSON_B = 0, 5, 10


def prepare_fisher(
    folders: list[Path],
    findings: Findings,
    noises: str = "keep",
    allow_incomplete: bool = False,
) -> list[Utterance]:
    """Read Fisher by lhotse's ``prepare_fisher_english``.

    Args:
        folders: that together hold audio, transcripts and tables, in any layout.
        findings: where all that is left out is counted.
        noises: see `normalize_fisher`.
        allow_incomplete: go on where over a twentieth of the calls cannot be used.

    Returns:
        Utterances by side and time; speakers are the callers' personal numbers.

    Raises:
        CorpusError: if a folder is missing or laid out otherwise, or too many calls are missing.
    """
    audio = find_files(folders, r"(fe_03_\d{5})\.sph", "Fisher audio", LAYOUT, findings)
    texts = find_files(folders, r"(fe_03_\d{5})\.txt", "Fisher transcripts", LAYOUT, findings)
    tables = find_files(folders, r"(.*calldata\.tbl)", "Fisher tables of calls", LAYOUT, findings)
    rows = _read_tables(tables)
    for name in sorted(set(texts) - set(audio)):
        findings.add(NO_AUDIO, name)
    for name in sorted(set(audio) - set(texts)):
        findings.add(NO_TRANSCRIPT, name)
    matched = {name: path for name, path in audio.items() if name in texts}
    for name in sorted(matched):
        if name[-5:] not in rows:
            findings.add(NO_SESSION, name)
            del matched[name]
    calls, compressed = check_calls(matched, findings)
    require_most(
        set(texts) - {call.name for call in calls},
        len(texts),
        allow_incomplete,
        f"Name all four folders. {LAYOUT}",
        findings,
    )
    with tempfile.TemporaryDirectory() as folder:
        supervisions = _read_by_lhotse(Path(folder), calls, texts, rows, compressed, findings)
    by_name = {call.name: call for call in calls}
    unknown = set()
    utterances = []
    for each in supervisions:
        call, channel = by_name[each.recording_id], true_channel(each)
        times = each.start, each.end
        person = f"fe_{each.speaker}" if each.speaker else None
        one = make_utterance(
            call.name, channel, times, normalize_fisher(each.text, noises), call.path, person
        )
        if person is None:
            unknown.add(one.side)
        if "((" in each.text:
            findings.add(UNSURE, one.name)
        else:
            utterances.append(one)
    for side in sorted(unknown):
        findings.add(NO_PERSON, side)
    return collect(utterances, findings)


def _read_tables(tables: Mapping[str, Path]) -> dict[str, list[str]]:
    """Read the tables of calls: call -> row."""
    rows: dict[str, list[str]] = {}
    places: dict[str, str] = {}
    for path in tables.values():
        for number, row in enumerate(csv.reader(read_lines(path, LDC_FALLBACK)), 1):
            where = f"{path}:{number}"
            if number == 1 or not row:
                continue
            if len(row) <= _PERSON_B:
                raise CorpusError(
                    f"{where}: row {','.join(row)!r} has {len(row)} columns; expected are over "
                    f"{_PERSON_B}, the callers' numbers in columns {_PERSON_A} and {_PERSON_B}. "
                    "Copy the table from the LDC's medium again."
                )
            fields = [field.strip() for field in row]
            call = fields[_CALL]
            if rows.setdefault(call, fields) != fields:
                raise CorpusError(
                    f"{where}: call {call} stands otherwise in {places[call]}. Name one copy of "
                    "Fisher's folders, and no other corpus's."
                )
            places.setdefault(call, where)
    return rows


def _read_transcript(path: Path, findings: Findings) -> dict[str, list[Segment]]:
    """Read ``START END SIDE: WORDS...`` lines, by side; ``#`` begins a comment."""
    sides: dict[str, list[Segment]] = {side: [] for side in SIDES}
    for number, line in enumerate(read_lines(path, LDC_FALLBACK), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, fields = f"{path.name}:{number}", line.split(maxsplit=3)
        times = parse_seconds(*fields[:2]) if len(fields) >= 3 else None
        if times is None or fields[2] not in ("A:", "B:"):
            findings.add(MALFORMED, name)
        elif len(fields) == 4:
            sides[fields[2][0]].append(Segment(name, *times, fields[3]))
    return sides


def _read_by_lhotse(
    folder: Path,
    calls: list[Call],
    texts: Mapping[str, Path],
    rows: Mapping[str, list[str]],
    compressed: bool,
    findings: Findings,
) -> list[Any]:
    """Return the supervisions of sound calls, whose files are laid out in `folder`."""
    from lhotse.recipes.fisher_english import prepare_fisher_english

    total = 0
    (folder / "transcripts" / "doc").mkdir(parents=True)
    header = ",".join(str(column) for column in range(_PERSON_B + 1))
    table = [header]
    for call in calls:
        link(folder / "audio" / "disks" / "audio" / "all" / f"{call.name}.sph", call.path)
        row = rows[call.name[-5:]]
        table.append(",".join([call.name[-5:], *row[1 : _PERSON_B + 1]]))
        segments = [
            (each, side)
            for side, every in _read_transcript(texts[call.name], findings).items()
            for each in check_segments(every, call.seconds, findings)
        ]
        segments.sort(key=lambda pair: pair[0].start)
        total += len(segments)
        lines = [f"# {call.name}.sph", "# Transcribed at the LDC", ""]  # lhotse skips three lines
        lines += [f"{each.start!r} {each.end!r} {side}: {each.text}" for each, side in segments]
        path = folder / "transcripts" / "data" / "trans" / "all" / f"{call.name}.txt"
        write_lines(path, lines)
    if not total:
        raise CorpusError(f"Fisher: no segment can be used. {LAYOUT}")
    write_lines(folder / "transcripts" / "doc" / "all_calldata.tbl", table)
    with lhotse_reads_sphere(compressed):
        # lhotse takes up manifests that lie in its output folder, whatever they are of.
        manifests = prepare_fisher_english(
            folder, folder / "manifests", ["audio"], ["transcripts"], absolute_paths=True
        )
        return list(manifests["supervisions"])
