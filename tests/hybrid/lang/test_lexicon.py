import pytest

from espnet_quant4.hybrid.lang.lexicon import (
    LexiconError,
    Pronunciation,
    check_phones,
    read_lexicon,
    with_disambiguation,
)


def write(tmp_path, text):
    path = tmp_path / "lexicon.txt"
    path.write_text(text)
    return path


def test_variants_probabilities_and_comments(tmp_path):
    path = write(tmp_path, ";;; a comment\nA AH\nA(2) EY\n\nTOO 0.5 T UW\nA AH\n")
    assert read_lexicon(path) == [
        Pronunciation("A", 1.0, ("AH",)),
        Pronunciation("A", 1.0, ("EY",)),
        Pronunciation("TOO", 0.5, ("T", "UW")),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [("A AH\nB\n", "lexicon.txt:2: 'B' has no phones"), ("A 1.5 AH\n", "probability 1.5"),
     ("", "no pronunciation")],
)  # fmt: skip
def test_bad_lexicons_name_the_line(tmp_path, text, says):
    with pytest.raises(LexiconError, match=says):
        read_lexicon(write(tmp_path, text))


def test_phones_that_a_topology_lacks_are_named():
    with pytest.raises(LexiconError, match=r"EY \(in A\).*it has: AH"):
        check_phones([Pronunciation("A", 1.0, ("EY",))], ["AH"], "topo")


def test_homophones_and_prefixes_are_told_apart():
    entries = [
        Pronunciation("TO", 1.0, ("T", "UW")),
        Pronunciation("TWO", 1.0, ("T", "UW")),
        Pronunciation("TOON", 1.0, ("T", "UW", "N")),
        Pronunciation("TEA", 1.0, ("T", "IY")),
    ]
    numbered, largest = with_disambiguation(entries)
    assert [number for _, number in numbered] == [1, 2, 0, 0]
    assert largest == 2
    sequences = [(*entry.phones, number) for entry, number in numbered]
    assert len(set(sequences)) == len(sequences)
