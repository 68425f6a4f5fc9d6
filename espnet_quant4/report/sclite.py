"""Counts of NIST's ``sclite``, the field's reference scorer, where it is installed.

Debian's package ``sctk`` puts it into ``/usr/lib/sctk/bin``.  `espnet_quant4.report.scoring` counts
the same without it; a test holds both together.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from espnet_quant4.report.scoring import Counts, Score, ScoringError, counts_of_utterance
from espnet_quant4.report.sctk import find_program

_ONE = re.compile(r"^id: \(u-(\d+)\)\s*\nScores: \(#C #S #D #I\) (\d+) (\d+) (\d+) (\d+)", re.M)
# What means something in a trn file: alternatives, optional words, comments, the empty word.
_SPECIAL = re.compile(r"[{}()/@;\\<>%*]|^-|-$")


def find_sclite() -> str | None:
    """Return the program's path, None where it is not installed."""
    return find_program("sclite")


def score_counts(result: Score, program: str) -> dict[str, Counts]:
    """Count the errors of the utterances of a score anew, with ``sclite``; see `sclite_counts`."""
    references, hypotheses = (
        {
            name: [token for pair in pairs if (token := pair[side]) is not None]
            for name, pairs in result.alignments.items()
        }
        for side in (0, 1)
    )
    return sclite_counts(references, hypotheses, program)


def sclite_counts(
    references: Mapping[str, Sequence[str]],
    hypotheses: Mapping[str, Sequence[str]],
    program: str,
) -> dict[str, Counts]:
    """Count each utterance's errors with ``sclite``, upper and lower case apart.

    Args:
        references: words of each utterance.
        hypotheses: of the same utterances.
        program: path of ``sclite``; see `find_sclite`.

    Raises:
        ScoringError: where the utterances differ or there are none, or ``sclite`` does not score all
            of them.
    """
    if references.keys() != hypotheses.keys():
        few = ", ".join(sorted(references.keys() ^ hypotheses.keys())[:3])
        raise ScoringError(f"references and hypotheses hold different utterances, such as {few}")
    names = list(references)
    if not names:
        # sclite itself would end by a signal.
        raise ScoringError("nothing to score: references and hypotheses hold no utterance")
    codes: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for side, texts in (("ref", references), ("hyp", hypotheses)):
            lines = [
                f"{' '.join(_code(word, codes) for word in texts[name])} (u-{number})\n"
                for number, name in enumerate(names)
            ]
            (Path(folder) / f"{side}.trn").write_text("".join(lines), encoding="utf-8")
        command = [program, "-s", "-e", "utf-8", "-i", "rm", "-o", "all", "stdout"]
        command += ["-r", f"{folder}/ref.trn", "trn", "-h", f"{folder}/hyp.trn", "trn"]
        result = subprocess.run(command, capture_output=True, text=True, errors="replace")
    found = {
        int(number): counts_of_utterance(*map(int, rest))
        for number, *rest in _ONE.findall(result.stdout)
    }
    if result.returncode or sorted(found) != list(range(len(names))):
        raise ScoringError(
            f"{program}: {len(found)} of {len(names)} utterances scored, exit status "
            f"{result.returncode}: {' '.join(result.stderr.split())[-300:]}"
        )
    return {name: found[number] for number, name in enumerate(names)}


def _code(word: str, codes: dict[str, str]) -> str:
    """Return the word, or a name for it where ``sclite`` would read it as markup."""
    if not _SPECIAL.search(word):
        return word
    return codes.setdefault(word, f"quant4word{len(codes)}")
