"""N-best lists in Kaldi's files: ``text``, ``ac_cost`` and ``lm_cost``, keyed ``UTTERANCE-RANK``.

As in Kaldi's ``steps/lmrescore`` and ``nbest-to-linear``: acoustic costs are without the acoustic
scale, and ``lm_cost`` is the graph's whole cost, that of the language model, pronunciations and
transitions.  ``acoustic_scale`` is that of the search that made the list, and ``utterances`` names
also those without any hypothesis.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_quant4.text_files import read_pairs, read_text, write_lines

_FILES = ("text", "ac_cost", "lm_cost")


class NBestError(ValueError):
    """Files of an n-best list do not belong together."""


@dataclass(frozen=True)
class Entry:
    """A word sequence with its costs.

    Attributes:
        words: the words.
        acoustic_cost: minus the sum of the scores, without the acoustic scale.
        graph_cost: of the path in the graph.
    """

    words: tuple[str, ...]
    acoustic_cost: float
    graph_cost: float


def write_nbest(
    folder: Path, entries: Mapping[str, Sequence[Entry]], acoustic_scale: float
) -> None:
    """Write a list; ``text`` comes last, so that it is there only when all is."""
    folder.mkdir(parents=True, exist_ok=True)
    keyed = [
        (f"{utterance}-{rank}", entry)
        for utterance, ranked in entries.items()
        for rank, entry in enumerate(ranked, start=1)
    ]
    write_lines(folder / "utterances", entries)
    (folder / "acoustic_scale").write_text(f"{acoustic_scale!r}\n", encoding="utf-8")
    write_lines(folder / "ac_cost", (f"{key} {entry.acoustic_cost!r}" for key, entry in keyed))
    write_lines(folder / "lm_cost", (f"{key} {entry.graph_cost!r}" for key, entry in keyed))
    write_lines(folder / "text", (" ".join([key, *entry.words]) for key, entry in keyed))


def read_nbest(folders: Iterable[Path]) -> tuple[dict[str, list[Entry]], float]:
    """Read the lists of one or more folders, such as those of parallel jobs.

    Returns:
        The entries of each utterance, and the acoustic scale of the search.

    Raises:
        NBestError: where the files of a folder hold different keys, or the folders were made with
            different acoustic scales.
        FileNotFoundError: where one is missing.
    """
    found: dict[str, list[Entry]] = {}
    scales = set()
    for folder in folders:
        utterances = read_text(folder / "utterances").split()
        found.update({utterance: [] for utterance in utterances})
        texts, acoustic, graph = (dict(_rows(folder / name)) for name in _FILES)
        named = {key.rpartition("-")[0] for key in texts}
        if not (texts.keys() == acoustic.keys() == graph.keys() and named <= set(utterances)):
            raise NBestError(
                f"{folder}: {', '.join(_FILES)} hold different utterances; decode into a new folder"
            )
        scales.add(_number(folder / "acoustic_scale", read_text(folder / "acoustic_scale")))
        for key, words in texts.items():
            costs = (
                _number(folder / name, " ".join(rows[key]))
                for name, rows in (("ac_cost", acoustic), ("lm_cost", graph))
            )
            entry = Entry(tuple(words), *costs)
            found[key.rpartition("-")[0]].append(entry)
    if len(scales) != 1:
        raise NBestError(f"acoustic scales {sorted(scales)}; lists of one search have one")
    return found, scales.pop()


def _rows(path: Path) -> Iterable[tuple[str, list[str]]]:
    for _, key, rest in read_pairs(path):
        yield key, rest.split()


def _number(path: Path, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise NBestError(f"{path}: {text!r} where a number is due; decode anew") from None
