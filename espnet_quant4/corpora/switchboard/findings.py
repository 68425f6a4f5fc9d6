"""What is wrong with a corpus: refused, or left out by a rule that the log states."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from espnet_quant4.text_files import write_lines

# The LDC's older files are in it where they are not in ASCII.
LDC_FALLBACK = "latin-1"


class CorpusError(ValueError):
    """A corpus that cannot be prepared; names the place, what is expected and what to do."""


@dataclass
class Findings:
    """Collects what is left out or changed, by rule.

    Attributes:
        corpus: named in every line.
        entries: rule -> what fell under it, as ``name (detail)``, in order.
        notes: further lines for the log.
    """

    corpus: str
    entries: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, rule: str, name: str, detail: object = "") -> None:
        """Record that `name` falls under `rule`."""
        self.entries.setdefault(rule, []).append(f"{name} ({detail})" if detail else name)

    def count(self, rule: str) -> int:
        """Return how many fell under `rule`."""
        return len(self.entries.get(rule, ()))

    def lines(self, examples: int = 3) -> list[str]:
        """Return the log: a line a rule, with its count and the first few names."""
        found = [f"{self.corpus}: {note}" for note in self.notes]
        for rule, names in self.entries.items():
            few = ", ".join(names[:examples]) + (", ..." if len(names) > examples else "")
            found.append(f"{self.corpus}: {len(names)} {rule}: {few}")
        return found


def write_findings(path: Path, findings: Iterable[Findings]) -> None:
    """Write all that was found as ``corpus<TAB>rule<TAB>name``, with a head line."""
    rows = ["corpus\trule\tname"]
    for each in findings:
        for rule, names in each.entries.items():
            rows += [f"{each.corpus}\t{rule}\t{name}" for name in names]
    write_lines(path, rows)


def require_folder(path: Path, what: str, hint: str) -> Path:
    """Return `path` if it is a folder.

    Raises:
        CorpusError: if not; says what should be there and `hint`.
    """
    if not path.is_dir():
        state = "is a file, not a folder" if path.exists() else "is not there"
        raise CorpusError(f"{what}: {path} {state}. {hint}")
    return path


def list_content(folder: Path, most: int = 6) -> str:
    """Return the first names in a folder, for messages about a wrong layout."""
    names = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "nothing") + more
