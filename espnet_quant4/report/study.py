"""One table of the same experiments with several seeds: every run, mean and spread."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet_quant4.report.scoring import ScoringError
from espnet_quant4.text_files import read_json

#: What tells experiments apart that differ in nothing but their seed.
KEY = ("system", "part", "bits", "inference")
RATES = ("wer", "cer")
Row = Mapping[str, Any]

# Of a row's entries; all others are texts. A GMM has no seed.
_TYPES: Mapping[str, Any] = {
    "seed": (int, type(None)),
    "words": int,
    **dict.fromkeys(RATES, (int, float)),
}

COLUMNS = {
    "system": "System",
    "part": "Part",
    "bits": "Bits",
    "inference": "Inference",
    "runs": "Seeds",
    "each": "WER % of each",
    "mean": "Mean",
    "spread": "Spread",
    "words": "Words",
}


def merge(results: Sequence[Path], rate: str = "wer") -> list[dict[str, Any]]:
    """Read the tables of runs, one a seed, into one list.

    A GMM has no seed of its own in its row: it gets the one of its run.

    Args:
        results: files that ``espnet-quant4 results`` or ``hybrid-results`` wrote.
        rate: what `summarize` will be asked for.

    Raises:
        ScoringError: where a file holds no such table, two runs have one seed, or other words were
            scored.
        TextFileError, OSError: where a file is missing or no JSON.
    """
    rows: list[dict[str, Any]] = []
    seen: dict[tuple[Any, ...], Path] = {}
    for path in results:
        run = _read_table(path, rate)
        seeds = {row["seed"] for row in run if row["seed"] is not None}
        if len(seeds) != 1:
            raise ScoringError(f"{path}: seeds {sorted(seeds)}; the runs of a study have one each")
        for row in run:
            row = {**row, "seed": row["seed"] if row["seed"] is not None else seeds.copy().pop()}
            key = (*(row[name] for name in KEY), row["seed"])
            if key in seen:
                raise ScoringError(f"{path}: seed {row['seed']} is that of {seen[key]} too")
            seen[key] = path
            rows.append(row)
    for row in rows:
        words = {other["words"] for other in rows if other["part"] == row["part"]}
        if len(words) != 1:
            raise ScoringError(f"part {row['part']}: {sorted(words)} words; score one data folder")
    return rows


def _read_table(path: Path, rate: str) -> list[Row]:
    """Return the rows of a run, each with all that a study needs of it."""
    made_by = "valid is what espnet-quant4 results or hybrid-results writes"
    run = read_json(path)
    if not isinstance(run, list) or not run or not all(isinstance(row, dict) for row in run):
        raise ScoringError(f"{path}: no list of a table's rows; {made_by}")
    for number, row in enumerate(run, 1):
        for name in (*KEY, "seed", "words", rate):
            valid = _TYPES.get(name, str)
            if name not in row or not isinstance(row[name], valid) or isinstance(row[name], bool):
                found = f"{name}: {row[name]!r}" if name in row else f"no {name}"
                raise ScoringError(f"{path}: row {number} has {found}; {made_by}")
    return run


def summarize(rows: Sequence[Row], rate: str = "wer") -> list[dict[str, Any]]:
    """Return one entry for the runs that differ in their seed alone, in the order of the first.

    Args:
        rows: of `merge`.
        rate: ``wer`` or ``cer``.

    Returns:
        Entries with ``KEY``'s names, ``runs``, ``each`` (rates by seed), ``mean``, ``spread`` (standard
        deviation of the runs; None for one) and ``words``.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in KEY), []).append(row)
    found = []
    for key, group in groups.items():
        rates = [row[rate] for row in sorted(group, key=lambda row: row["seed"])]
        found.append(
            {
                **dict(zip(KEY, key, strict=True)),
                "runs": len(rates),
                "each": " ".join(f"{value:.2f}" for value in rates),
                "mean": round(statistics.fmean(rates), 2),
                "spread": round(statistics.stdev(rates), 2) if len(rates) > 1 else None,
                "words": group[0]["words"],
            }
        )
    return found
