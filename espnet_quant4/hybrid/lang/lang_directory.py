"""The folder ``data/lang``: symbols, lexicon, topology, L; written once and read by all stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from espnet_quant4.hybrid.kaldi import kaldifst
from espnet_quant4.hybrid.lang.lexicon import (
    RESERVED,
    LexiconError,
    Pronunciation,
    check_phones,
    check_word,
    count_unknown,
    describe_unknown,
    read_lexicon,
    split_fields,
    unknown_share,
    with_disambiguation,
)
from espnet_quant4.hybrid.lang.lexicon_fst import lexicon_fst_text
from espnet_quant4.hybrid.lang.topology import check_topology, topology_text
from espnet_quant4.text_files import (
    read_pairs,
    read_symbols,
    read_text,
    write_lines,
    write_symbols,
    write_text,
)

SILENCE, SPOKEN_NOISE = "SIL", "SPN"
OOV_POLICIES = ("map", "refuse")
# More unknown words than this are a lexicon of another case, encoding or language.
MAX_OOV_SHARE = 0.2
RESERVED_IN_TEXT = frozenset(RESERVED)


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
        return _read_symbols(self.folder / "phones.txt")

    @cached_property
    def words(self) -> dict[str, int]:
        """All words with their ids; ``<eps>`` is 0."""
        return _read_symbols(self.folder / "words.txt")

    @cached_property
    def unknown_word(self) -> str:
        """What stands for words that the lexicon lacks."""
        path = self.folder / "oov.txt"
        word = read_text(path).strip()
        if word not in self.words:
            raise LexiconError(
                f"{path}: {word!r} is not in {self.folder}/words.txt; make the folder anew."
            )
        return word

    def ids(self, kind: str) -> list[int]:
        """Return the phone ids of ``silence``, ``nonsilence`` or ``disambig``."""
        path = self.folder / "phones" / f"{kind}.txt"
        names = read_text(path).split()
        if lacking := [name for name in names if name not in self.phones]:
            raise LexiconError(
                f"{path}: {', '.join(lacking[:3])} not in {self.folder}/phones.txt; make the "
                "folder anew."
            )
        return [self.phones[name] for name in names]

    @property
    def topology(self) -> str:
        """Kaldi's text form."""
        return read_text(self.folder / "topo")

    def word_ids(self, words: Sequence[str]) -> list[int]:
        """Return ids, that of the unknown word for those that the lexicon lacks."""
        unknown = self.words[self.unknown_word]
        return [self.words.get(word, unknown) for word in words]

    def pronounce(self, transcripts: Mapping[str, Sequence[str]]) -> dict[str, list[list[int]]]:
        """Return phone ids of each word of each utterance, by the word's first pronunciation."""
        first: dict[str, list[int]] = {}
        for entry in read_lexicon(self.folder / "lexiconp.txt", variants=False):
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
    max_oov_share: float = MAX_OOV_SHARE,
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
        max_oov_share: largest share of unknown words in all words of the transcripts, 0 to 1.

    Returns:
        The unknown words and how often each occurs.

    Raises:
        LexiconError: for a lexicon, option or topology that is not valid; for more unknown words than
            ``max_oov_share``, or any with ``oov="refuse"``; for a phone that the topology lacks.
    """
    _check_options(unknown_word, oov, silence_probability, max_oov_share)
    entries = read_lexicon(lexicon)
    known = {entry.word for entry in entries}
    unknown = count_unknown(transcripts, known)
    if unknown and oov == "refuse":
        raise LexiconError(
            f"{lexicon}: {describe_unknown(unknown, transcripts, known)}. Add them, or map them to "
            f"{unknown_word}: --oov map."
        )
    if unknown_share(unknown, transcripts) > max_oov_share:
        raise LexiconError(
            f"{lexicon}: {describe_unknown(unknown, transcripts, known)}. Add them; or, if so many are "
            f"to become {unknown_word}, allow more than {max_oov_share:g} of all: --max_oov_share 1."
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
        topo = read_text(topology)
        covered = set(check_topology(topo, str(topology)))
        in_topology = [phone for phone, number in phones.items() if number in covered]
        check_phones(entries, in_topology, str(topology))

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
    write_text(output / "topo", topo)
    for name, symbol in (("L.fst", None), ("L_disambig.fst", disambiguation[-1])):
        text = lexicon_fst_text(numbered, phones, words, SILENCE, silence_probability, symbol)
        fst = kaldifst().compile(text, acceptor=False)
        kaldifst().arcsort(fst, sort_type="olabel")
        fst.write(str(output / name))
    return unknown


def read_transcripts(path: Path) -> dict[str, list[str]]:
    """Read a Kaldi-style ``text``: utterance, words.

    Raises:
        LexiconError: naming the line, for a word that graphs use for themselves, or white space other
            than blanks and tabs.
        TextFileError: for an utterance that stands twice, or a file that is no text in UTF-8.
    """
    transcripts = {}
    for number, utterance, rest in read_pairs(path):
        where = f"{path}:{number}"
        transcripts[utterance] = words = split_fields(rest, where)
        if reserved := RESERVED_IN_TEXT.intersection(words):
            raise LexiconError(
                f"{where}: {utterance}: the word {min(reserved)!r} is reserved; remove it from the "
                "transcript."
            )
    return transcripts


def _check_options(
    unknown_word: str, oov: str, silence_probability: float, max_oov_share: float
) -> None:
    if oov not in OOV_POLICIES:
        raise LexiconError(f"oov: {oov!r}; valid: {', '.join(OOV_POLICIES)}")
    if split_fields(unknown_word, "--unknown_word") != [unknown_word]:
        raise LexiconError(f"--unknown_word {unknown_word!r}; valid is one word, such as <UNK>")
    check_word(unknown_word, "--unknown_word")
    if not 0 < silence_probability < 1:
        raise LexiconError(
            f"--silence_probability {silence_probability:g}; valid are numbers between 0 and 1"
        )
    if not 0 <= max_oov_share <= 1:
        raise LexiconError(f"--max_oov_share {max_oov_share:g}; valid are numbers from 0 to 1")


def _symbols(names: Sequence[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(["<eps>", *names])}


def _read_symbols(path: Path) -> dict[str, int]:
    """Read a symbol table; ids are different, and that of ``<eps>`` is 0, as Kaldi wants them."""
    symbols = read_symbols(path)
    if symbols.get("<eps>") != 0:
        raise LexiconError(f"{path}: <eps> has number {symbols.get('<eps>')}; it must have 0.")
    names: dict[int, str] = {}
    for name, number in symbols.items():
        if (other := names.setdefault(number, name)) != name:
            raise LexiconError(f"{path}: {other!r} and {name!r} both have number {number}.")
    return symbols
