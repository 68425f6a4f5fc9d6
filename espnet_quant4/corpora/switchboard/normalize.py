r"""Transcripts as the published Switchboard recipes have them.

The rules are those of Kaldi's ``egs/swbd/s5c`` (``swbd1_data_prep.sh``, ``swbd1_map_words.pl``,
``fisher_data_prep.sh``) and ESPnet's ``egs2/swbd`` (``data.sh``):

====================  ================  ========================================================
transcript            becomes           what it is
====================  ================  ========================================================
``[laughter-yeah]``   ``yeah``          spoken while laughing
``i[t]-``             ``i-``            a word broken off; what was not said is in brackets
``-[an]y``            ``-y``            its end only
``ammu[n]it-``        ``ammu-it-``      something left out within
``[it'n/isn't]``      ``it'n``          mispronounced, as it sounded / as it was meant
``{yuppiedom}``       ``yuppiedom``     a coinage
``them_1's``          ``them's``        "'em"; the number tells a pronunciation
``IBM``               ``i b m``         spelled letters, see `acronyms`
``VCRs``              ``v c r's``       as references of evaluations write plurals too
``[silence]``         nothing
``<b_aside>``         nothing           begin (``<e_aside>``: end) of an aside to someone else
``[noise]`` etc.      stays             also ``[laughter]`` and ``[vocalized-noise]``
====================  ================  ========================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from espnet_quant4.report.alternatives import first_words, parse_alternatives

NOISES = ("[laughter]", "[noise]", "[vocalized-noise]")
# Fisher's names of noises -> those of Switchboard-1.
_FISHER_NOISES = {
    "[laugh]": "[laughter]",
    **dict.fromkeys(("[sigh]", "[cough]", "[mn]", "[breath]", "[lipsmack]"), "[noise]"),
}
# A last letter with its plural, as in b._b._c.s and a.s
_PLURAL = re.compile(r"(?:(?<=\._)|^)([a-z])\.s$")
_DROPPED = ("[silence]", "<b_aside>", "<e_aside>")
_ASIDE = re.compile(r"<[be]_aside>", re.IGNORECASE)

_LAUGHED = re.compile(r"(-?)\[laughter-(.+)\](-?)", re.IGNORECASE)
_MISPRONOUNCED = re.compile(r"\[(.+)/.+\](-?)")
_END_ONLY = re.compile(r"-?\[[^][]+\](.+)")
_BROKEN_OFF = re.compile(r"(.+)\[[^][]+\]-?")
_WITHIN = re.compile(r"(.*[a-z'])\[[^][]+\]([a-z'].*)", re.IGNORECASE)
_STRAY = re.compile(r"([^][]+)\[.+\]")
_COINED = re.compile(r"\{(.+)\}")
_VARIANT = re.compile(r"_\d")


def map_word(word: str) -> str:
    """Return a transcribed word of Switchboard-1 without its marks; case and noises stay.

    The rules apply one after the other, and once more while one of them finds something, for marks
    may stand in any order: ``[laughter-wou[ld]-]`` and ``{wou[ld]-}`` are ``wou-``.
    """
    mapped = _map_once(word)
    while mapped != word:
        word, mapped = mapped, _map_once(mapped)
    return mapped


def _map_once(word: str) -> str:
    if word.lower() in NOISES:
        return word.lower()
    if match := _LAUGHED.fullmatch(word):
        # A dash outside the brackets belongs to the word.
        word = "".join(match.groups())
    if match := _MISPRONOUNCED.fullmatch(word):
        word = "".join(match.groups())
    if match := _WITHIN.fullmatch(word):
        word = "-".join(match.groups())
    if match := _END_ONLY.fullmatch(word):
        word = "-" + match[1]
    if match := _BROKEN_OFF.fullmatch(word):
        word = match[1] + "-"
    # As in ex[specially]-/especially], a slip in the transcripts.
    if match := _STRAY.fullmatch(word):
        word = match[1]
    if match := _COINED.fullmatch(word):
        word = match[1]
    return _VARIANT.sub("", word)


def normalize_swbd1(text: str, acronyms: Mapping[str, str], noises: str = "keep") -> str:
    """Normalize a transcript of Switchboard-1 (ISIP, 1998-2003).

    Args:
        text: words between blanks.
        acronyms: word -> its letters, see `acronyms`.
        noises: ``keep`` or ``remove`` ``[laughter]``, ``[noise]``, ``[vocalized-noise]``.

    Returns:
        The words in lower case; empty where nothing was said.
    """
    words = []
    for word in _ASIDE.sub(" ", text).split():
        if word.lower() in _DROPPED:
            continue
        mapped = map_word(word)
        words.append(acronyms.get(mapped, mapped).lower())
    return _join(words, noises)


def normalize_fisher(text: str, noises: str = "keep") -> str:
    """Normalize a transcript of Fisher: ``i._b._m.`` is ``i b m``, noises get Switchboard's names.

    Transcripts with ``((``, of which the transcriber was not sure, are left out by the caller.
    """
    words = []
    for word in text.lower().split():
        if word in _FISHER_NOISES or word.startswith("["):
            words.append(_FISHER_NOISES.get(word, word))
            continue
        words += map_word(_letters_apart(word)).split()
    return _join(words, noises)


def _letters_apart(word: str) -> str:
    """Return the letters of ``i._b._m.`` apart, without the periods of it or of any other word.

    Its plural ``i._b._m.s`` becomes ``i b m's``, which is how references of evaluations write it.
    """
    return _PLURAL.sub(r"\1's", word).replace("._", " ").replace(".", "")


def _join(words: list[str], noises: str) -> str:
    if noises == "remove":
        words = [word for word in words if word not in NOISES]
    return " ".join(words)


_TAG = re.compile(r"<[^<>\s]*>")
# What has no words is optional as a whole, which sclite's trn format marks as STM does.
NOTHING_SAID = "(%hesitation)"


def normalize_stm(text: str) -> str:
    """Return the words of an STM transcript, for error rates without NIST's tools.

    Of ``{ a / b }`` the first alternative with words is taken, inside others too; optional words,
    ``(word)``, count as said, hesitations, ``(%hesitation)``, do not; ``[laughter]`` and tags go.
    Acronyms are letters: ``i._b._m.`` is ``i b m``.

    Returns:
        The words in lower case; `NOTHING_SAID` where there are none, so that such a segment is
        decoded all the same and its reference demands nothing.

    Raises:
        ScoringError: for braces that do not match.
    """
    plain = _TAG.sub(" ", text.lower()).replace("(", " ").replace(")", " ")
    said = (_said(word) for word in first_words(parse_alternatives(plain), _said))
    return " ".join(word for word in said if word) or NOTHING_SAID


def _said(word: str) -> str:
    """Return a word of an STM as it is counted; empty where it is none."""
    return "" if word.startswith(("%", "[")) or word == "@" else _letters_apart(word)
