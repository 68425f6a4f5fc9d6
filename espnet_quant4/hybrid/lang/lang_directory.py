"""The folder ``data/lang``: symbols, lexicon, topology, L; written once and read by all stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from espnet_quant4.hybrid.kaldi import kaldifst
from espnet_quant4.hybrid.lang.lexicon import (
    LexiconError,
    Pronunciation,
    check_phones,
    count_unknown,
    read_lexicon,
    with_disambiguation,
)
from espnet_quant4.hybrid.lang.lexicon_fst import lexicon_fst_text
from espnet_quant4.hybrid.lang.topology import topology_text
from espnet_quant4.text_files import read_symbols, write_lines, write_symbols

SILENCE, SPOKEN_NOISE = "SIL", "SPN"
OOV_POLICIES = ("map", "refuse")


@dataclass(frozen=True)
class Lang:
    """A lang folder.

    Attributes:
        folder: where it is.
    """

    folder: Path

    @cached_property
    def phones(self) -> dict[str, int]:
        """All phones and disambiguation symbols with their ids; ``<eps>`` is 0."""
        return read_symbols(self.folder / "phones.txt")

    @cached_property
    def words(self) -> dict[str, int]:
        """All words with their ids; ``<eps>`` is 0."""
        return read_symbols(self.folder / "words.txt")

    @cached_property
    def unknown_word(self) -> str:
        """What stands for words that the lexicon lacks."""
        return (self.folder / "oov.txt").read_text(encoding="utf-8").strip()

    def ids(self, kind: str) -> list[int]:
        """Return the phone ids of ``silence``, ``nonsilence`` or ``disambig``."""
        names = (self.folder / "phones" / f"{kind}.txt").read_text(encoding="utf-8").split()
        return [self.phones[name] for name in names]

    @property
    def topology(self) -> str:
        """Kaldi's text form."""
        return (self.folder / "topo").read_text(encoding="utf-8")

    def word_ids(self, words: Sequence[str]) -> list[int]:
        """Return ids, that of the unknown word for those that the lexicon lacks."""
        unknown = self.words[self.unknown_word]
        return [self.words.get(word, unknown) for word in words]

    def pronounce(self, transcripts: Mapping[str, Sequence[str]]) -> dict[str, list[list[int]]]:
        """Return phone ids of each word of each utterance, by the word's first pronunciation."""
        first: dict[str, list[int]] = {}
        for entry in read_lexicon(self.folder / "lexiconp.txt"):
            first.setdefault(entry.word, [self.phones[phone] for phone in entry.phones])
        unknown = first[self.unknown_word]
        return {
            utterance: [first.get(word, unknown) for word in words]
            for utterance, words in transcripts.items()
        }


def prepare_lang(
    lexicon: Path,
    output: Path,
    transcripts: dict[str, list[str]],
    unknown_word: str = "<UNK>",
    oov: str = "map",
    silence_probability: float = 0.5,
    topology: Path | None = None,
) -> Counter[str]:
    """Write a lang folder.

    Args:
        lexicon: see `read_lexicon`.
        output: the folder.
        transcripts: words of the training utterances, in which unknown words are counted.
        unknown_word: what these are mapped to; pronounced ``SPN``.
        oov: ``map``, or ``refuse``.
        silence_probability: of silence after a word.
        topology: a ``topo`` file of one's own, in the ids of the ``phones.txt`` that is written; made
            from the lexicon if None.

    Returns:
        The unknown words and how often each occurs.

    Raises:
        LexiconError: for a lexicon that is not valid; for unknown words with ``oov="refuse"``; for a
            phone that the topology lacks.
    """
    if oov not in OOV_POLICIES:
        raise LexiconError(f"oov: {oov!r}; valid: {', '.join(OOV_POLICIES)}")
    entries = read_lexicon(lexicon)
    unknown = count_unknown(transcripts, (entry.word for entry in entries))
    if unknown and oov == "refuse":
        most = ", ".join(f"{word} ({count})" for word, count in unknown.most_common(10))
        raise LexiconError(
            f"{lexicon}: {len(unknown)} words of the transcripts, {sum(unknown.values())} times in "
            f"all, have no pronunciation: {most}. Add them, or map them to {unknown_word}: --oov map."
        )
    if all(entry.word != unknown_word for entry in entries):
        entries.append(Pronunciation(unknown_word, 1.0, (SPOKEN_NOISE,)))
    entries.sort(key=lambda entry: (entry.word, entry.phones))
    nonsilence = sorted({p for e in entries for p in e.phones} - {SILENCE, SPOKEN_NOISE})
    if not nonsilence:
        raise LexiconError(f"{lexicon}: no phone besides {SILENCE} and {SPOKEN_NOISE}")
    numbered, largest = with_disambiguation(entries)
    disambiguation = [f"#{number}" for number in range(largest + 2)]
    phones = _symbols([SILENCE, SPOKEN_NOISE, *nonsilence, *disambiguation])
    words = _symbols([*dict.fromkeys(entry.word for entry in entries), "#0", "<s>", "</s>"])
    topo = topology_text([phones[p] for p in nonsilence], [phones[SILENCE], phones[SPOKEN_NOISE]])
    if topology is not None:
        topo = topology.read_text(encoding="utf-8")
        covered = set(_phones_of_topology(topo))
        known = [phone for phone, number in phones.items() if number in covered]
        check_phones(entries, known, str(topology))

    (output / "phones").mkdir(parents=True, exist_ok=True)
    write_symbols(output / "phones.txt", phones)
    write_symbols(output / "words.txt", words)
    kinds = {
        "silence": [SILENCE, SPOKEN_NOISE],
        "nonsilence": nonsilence,
        "disambig": disambiguation,
    }
    for kind, names in kinds.items():
        write_lines(output / "phones" / f"{kind}.txt", names)
    write_lines(
        output / "lexiconp.txt",
        [f"{e.word} {e.probability:g} {' '.join(e.phones)}" for e in entries],
    )
    write_lines(output / "oov.txt", [unknown_word])
    write_lines(
        output / "oov_counts.txt", [f"{word} {count}" for word, count in unknown.most_common()]
    )
    (output / "topo").write_text(topo, encoding="utf-8")
    for name, symbol in (("L.fst", None), ("L_disambig.fst", disambiguation[-1])):
        text = lexicon_fst_text(numbered, phones, words, SILENCE, silence_probability, symbol)
        fst = kaldifst().compile(text, acceptor=False)
        kaldifst().arcsort(fst, sort_type="olabel")
        fst.write(str(output / name))
    return unknown


def read_transcripts(path: Path) -> dict[str, list[str]]:
    """Read a Kaldi-style ``text``: utterance, words."""
    rows = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {fields[0]: fields[1:] for fields in rows if fields}


def _symbols(names: Sequence[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(["<eps>", *names])}


def _phones_of_topology(text: str) -> list[int]:
    phones: list[int] = []
    for part in text.split("<ForPhones>")[1:]:
        phones += [int(number) for number in part.split("</ForPhones>")[0].split()]
    return phones
