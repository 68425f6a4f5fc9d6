"""Transcripts of Switchboard, Fisher and STM files: by hand, one mark after the other."""

import pytest

from espnet_quant4.corpora.switchboard.dictionary import acronyms, lexicon
from espnet_quant4.corpora.switchboard.normalize import (
    NOTHING_SAID,
    map_word,
    normalize_fisher,
    normalize_stm,
    normalize_swbd1,
)
from espnet_quant4.report.scoring import ScoringError

ENTRIES = [
    (word, tuple(phones))
    for word, *phones in map(
        str.split,
        (
            "IBM ay b iy eh m",
            "IBM's ay b iy eh m z",
            "VCRs v iy s iy aa r z",
            "NASA n ae s ax",
            "is ih z",
            "i[t]- ih",
            "[silence] sil",
            "[noise] sil",
        ),
    )
]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("yeah", "yeah"),
        ("[laughter-yeah]", "yeah"),
        ("[LAUGHTER-Yeah]", "Yeah"),
        ("[laughter-wou[ld]-]", "wou-"),
        ("i[t]-", "i-"),
        ("ab[solute]-", "ab-"),
        ("ab[solute]", "ab-"),
        ("-[an]y", "-y"),
        ("[an]y", "-y"),
        ("-[a]b[out]-", "-b-"),
        ("ammu[n]it-", "ammu-it-"),
        ("[it'n/isn't]", "it'n"),
        ("[lem[guini]-/linguini]", "lem-"),
        ("[laughter-[it'n/isn't]]", "it'n"),
        ("ex[specially]-/especially]", "ex"),
        ("{yuppiedom}", "yuppiedom"),
        ("them_1", "them"),
        ("them_1's", "them's"),
        ("[laughter-them_1's]", "them's"),
        ("th[em_1]-", "th-"),
        ("{wou[ld]-}", "wou-"),
        ("[laughter-{yuppiedom}]", "yuppiedom"),
        ("{[laughter-yeah]}", "yeah"),
        ("[vocalized-noise]", "[vocalized-noise]"),
        ("[Noise]", "[noise]"),
        ("uh-huh", "uh-huh"),
    ],
)
def test_marks_of_switchboard_words(word, expected):
    assert map_word(word) == expected


def test_transcript_of_switchboard():
    text = "[silence] <b_aside> [laughter-yeah] i[t]- <E_ASIDE> IBM's [noise] NASA I them_1"
    letters = acronyms(ENTRIES)
    assert normalize_swbd1(text, letters) == "yeah i- i b m's [noise] nasa i them"
    assert normalize_swbd1(text, letters, "remove") == "yeah i- i b m's nasa i them"
    assert normalize_swbd1("[silence]", letters) == ""
    assert normalize_swbd1("<b_aside>[laughter-no]<e_aside>", letters) == "no"


def test_only_what_is_pronounced_as_letters_is_spelled():
    assert acronyms(ENTRIES) == {"IBM": "i b m", "IBM's": "i b m's", "VCRs": "v c r's"}


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        # One of two pronunciations is spelled, whichever stands first.
        (["SQL eh s k y uw eh l", "SQL s iy k w ax l"], {"SQL": "s q l"}),
        (["SQL s iy k w ax l", "SQL eh s k y uw eh l"], {"SQL": "s q l"}),
        # Single letters, as in "two Cs"; but words stay words.
        (["Cs s iy z", "C's s iy z", "C s iy"], {"Cs": "c's", "C's": "c's"}),
        (["as ey z", "as ae z", "is ih z", "us ah s", "I'm ay m", "a ey"], {}),
        # The dictionary lacks an n here.
        (["NAACP eh ey ey s iy p iy", "NIT eh ay t iy"], {"NAACP": "n a a c p", "NIT": "n i t"}),
        # What tells a pronunciation goes first.
        (["TVs_1 t iy v iy z"], {"TVs": "t v's"}),
    ],
)
def test_spelled_words(entries, expected):
    found = [(word, tuple(phones)) for word, *phones in map(str.split, entries)]
    assert acronyms(found) == expected
    words = {line.split()[0] for line in lexicon(found)}
    for word, _ in found:
        assert words.issuperset(normalize_swbd1(word, acronyms(found)).split()), word


def test_braces_of_an_stm_that_do_not_match_are_refused():
    with pytest.raises(ScoringError, match="an opening brace without its closing one"):
        normalize_stm("{ A { B / C } D")


def test_lexicon_has_every_word_that_normalization_can_write():
    lines = lexicon(ENTRIES)
    words = {line.split()[0] for line in lines}
    for word, _ in ENTRIES:
        assert words.issuperset(normalize_swbd1(word, acronyms(ENTRIES)).split()), word
    assert {"m's eh m z", "r's aa r z", "[noise] nsn", "w d ah b ax l y uw", "i- ih"} <= set(lines)
    assert "[silence]" not in words
    assert "ibm" not in words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("an- so [laugh] the topic is i._b._m.", "an- so [laughter] the topic is i b m"),
        ("[sigh] [cough] [mn] [breath] [lipsmack]", "[noise] [noise] [noise] [noise] [noise]"),
        ("Mr. t._v.'s", "mr t v's"),
        ("t._v.s a.s b.'s c. u._s. was.", "t v's a's b's c u s was"),
    ],
)
def test_transcript_of_fisher(text, expected):
    assert normalize_fisher(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(%HESITATION) YEAH I (KNOW)", "yeah i know"),
        ("{ HE IS / HE'S } HERE", "he is here"),
        ("{ @ / AND } SO", "and so"),
        ("{ A { B / C } / D } E", "a b e"),
        ("{ @ { (%UH) / @ } / { @ / D } F / G } E", "d f e"),
        ("{ { A / B } / C } {D/E}", "a d"),
        ("{ / A } B/C / D", "a b/c / d"),
        ("THE T._V.S V C R'S", "the t v's v c r's"),
        ("[LAUGHTER] OH <NON_LEX>", "oh"),
        ("(%HESITATION)", NOTHING_SAID),
        ("", NOTHING_SAID),
    ],
)
def test_words_of_stm(text, expected):
    assert normalize_stm(text) == expected
