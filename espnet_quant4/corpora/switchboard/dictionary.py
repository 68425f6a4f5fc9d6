"""The dictionary of the ISIP transcripts: acronyms by their pronunciation, and a lexicon.

Which words are spelled is told by their pronunciation, as in Kaldi's ``format_acronyms_dict.py``:
``IBM`` is pronounced as its letters are, ``NASA`` is not.
"""

from __future__ import annotations

from pathlib import Path

from espnet_quant4.corpora.switchboard.findings import LDC_FALLBACK, CorpusError
from espnet_quant4.corpora.switchboard.normalize import map_word
from espnet_quant4.text_files import read_lines

DICTIONARY = "sw-ms98-dict.text"
# Names of the letters in the dictionary's phones; it lacks some of them as words.
_LETTER_LINES = """
a ey, b b iy, c s iy, d d iy, e iy, f eh f, g jh iy, h ey ch, i ay, j jh ey, k k ey, l eh l, m eh m,
n eh n, o ow, p p iy, q k y uw, r aa r, s eh s, t t iy, u y uw, v v iy, w d ah b ax l y uw, x eh k s,
y w ay, z z iy
"""
LETTERS = {
    letter: phones
    for letter, _, phones in (line.strip().partition(" ") for line in _LETTER_LINES.split(","))
}
# Phones for what is not a word, named as in Kaldi's recipe: laughter, noise, spoken noise.
NOISE_PHONES = {"[laughter]": "lau", "[noise]": "nsn", "[vocalized-noise]": "spn", "<unk>": "spn"}
# Whose entries lack the n of their letters' names; Kaldi's recipe corrects them by a patch.
_LACKS_N = {"NAACP", "NIT", "NTSC"}
Entry = tuple[str, tuple[str, ...]]


def read_dictionary(path: Path) -> list[Entry]:
    """Read ``WORD PHONE...`` lines; lines that begin with ``#`` are comments.

    Raises:
        CorpusError: if the file is missing or has no entry.
        TextFileError: if it is no text.
    """
    if not path.is_file():
        raise CorpusError(
            f"{path} is not there. It comes with the ISIP transcripts and tells which words are "
            "spelled; unpack switchboard_word_alignments.tar.gz as a whole."
        )
    entries = []
    for line in read_lines(path, LDC_FALLBACK):
        word, *phones = line.split() or ["#"]
        if not word.startswith("#") and phones:
            entries.append((word, tuple(phones)))
    if not entries:
        raise CorpusError(f"{path}: no line is WORD PHONE...; unpack the transcripts again.")
    return entries


def _spelling(word: str, phones: tuple[str, ...]) -> str | None:
    """Return the letters of a word that is pronounced as they are; None for any other.

    A plural gets an apostrophe, ``VCRs``: ``v c r's``. References of evaluations write it so, and it
    sounds as ``VCR's`` does.
    """
    if word in _LACKS_N:
        return " ".join(word.lower())
    for ending, sounds in (("", ((),)), ("'s", (("s",), ("z",))), ("s", (("s",), ("z",)))):
        letters = word[: len(word) - len(ending)].lower()
        if not word.endswith(ending) or not letters or not LETTERS.keys() >= set(letters):
            continue
        if len(letters) == 1 and not ending:
            continue
        names = tuple(" ".join(LETTERS[letter] for letter in letters).split())
        if phones in [names + sound for sound in sounds]:
            return " ".join(letters) + ("'s" if ending else "")
    return None


def acronyms(entries: list[Entry]) -> dict[str, str]:
    """Return word -> letters of all spelled words: ``IBM``: ``i b m``, ``VCRs``: ``v c r's``.

    A word of several pronunciations is spelled if one of them is. Plurals of single letters (``Cs``)
    are so only if all are, for ``as`` and ``is`` must stay words.
    """
    spellings: dict[str, list[str | None]] = {}
    for raw, phones in entries:
        word = map_word(raw)
        spellings.setdefault(word, []).append(_spelling(word, phones))
    return {
        word: letters
        for word, found in spellings.items()
        if (letters := next(filter(None, found), None)) and (" " in letters or all(found))
    }


def lexicon(entries: list[Entry]) -> list[str]:
    """Return ``word phone...`` lines, sorted, for texts that `normalize_swbd1` wrote.

    Beside the mapped words: the letters, letters with the ending of an acronym (``m's``), noises
    and ``<unk>``.  Kaldi's recipe corrects some entries by a patch; these stand as ISIP has them.
    """
    spelled = acronyms(entries)
    lines = {f"{word} {phone}" for word, phone in NOISE_PHONES.items()}
    lines |= {f"{letter} {phones}" for letter, phones in LETTERS.items()}
    for raw, phones in entries:
        word = map_word(raw)
        if word.lower() in _NOT_WORDS:
            continue
        if word not in spelled:
            lines.add(f"{word.lower()} {' '.join(phones)}")
        elif _spelling(word, phones):
            last = spelled[word].split()[-1]
            if len(last) > 1:
                lines.add(f"{last} {LETTERS[last[0]]} {phones[-1]}")
    return sorted(lines)


_NOT_WORDS = {"[silence]", "<b_aside>", "<e_aside>", *NOISE_PHONES}
