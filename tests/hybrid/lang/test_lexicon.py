import pytest

from espnet_quant4.hybrid.lang.lexicon import (
    LexiconError,
    Pronunciation,
    check_phones,
    read_lexicon,
    with_disambiguation,
)
from espnet_quant4.text_files import TextFileError


def write(tmp_path, text, name="lexicon.txt"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_variants_and_comments(tmp_path):
    path = write(tmp_path, ";;; a comment\nA AH\nA(2) EY # as a letter\n\nTOO T UW\nA(3) AH\n")
    assert read_lexicon(path) == [
        Pronunciation("A", 1.0, ("AH",)),
        Pronunciation("A", 1.0, ("EY",)),
        Pronunciation("TOO", 1.0, ("T", "UW")),
    ]


def test_the_files_name_says_whether_there_are_probabilities(tmp_path):
    text = "ONE 1 W\nTOO 1 T UW\n"
    assert [e.phones for e in read_lexicon(write(tmp_path, text))] == [("1", "W"), ("1", "T", "UW")]
    path = write(tmp_path, "TOO 0.5 T UW\nONE 1 1\n", "lexiconp.txt")
    assert read_lexicon(path) == [
        Pronunciation("TOO", 0.5, ("T", "UW")),
        Pronunciation("ONE", 1.0, ("1",)),
    ]


@pytest.mark.parametrize("form", ["\ufeff{}", "{}\r", "{}"], ids=["mark", "CRLF", "plain"])
def test_byte_order_mark_and_line_ends_are_no_part_of_words(tmp_path, form):
    text = form.format("A AH\nB B IY\n".replace("\n", form[2:] + "\n"))
    assert [entry.word for entry in read_lexicon(write(tmp_path, text))] == ["A", "B"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("A AH\nB\n", ":2: 'B' has no phones"),
        ("", "no pronunciation"),
        ("A AH\nB # B IY\n", ":2: 'B' has no phones"),
        ("A AH\n#0 AH\n", ":2: the word '#0' is reserved"),
        ("<s> AH\n", ":1: the word '<s>' is reserved"),
        ("</s>(2) AH\n", ":1: the word '</s>' is reserved"),
        ("<eps> AH\n", ":1: the word '<eps>' is reserved"),
        ("# a comment\nA AH\n", ":1: the word '#'; if the line is a comment, begin it with ;;;"),
        ("A AH <eps>\n", ":1: the phone '<eps>' is reserved"),
        ("A AH #1\n", ":1: the phone '#1' is reserved"),
        ("A AH #comment\n", ":1: the phone '#comment' is reserved"),
        ("A AH_B\n", ":1: the phone 'AH_B' ends as Kaldi marks positions"),
        ("A AH\nB B IY\nA AH\n", ":3: 'A AH' stands in line 1 too"),
        ("A 0.5 AH\n", ":1: '0.5' looks like a probability, and these are read from a lexiconp"),
        ("A\u00a0AH B\n", ":1: white space U\\+00A0"),
    ],
)
def test_bad_lexicons_name_the_line(tmp_path, text, says):
    with pytest.raises(LexiconError, match=r"lexicon\.txt.*" + says):
        read_lexicon(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("A 1.5 AH\n", ":1: probability 1.5"),
        ("A 0 AH\n", ":1: probability 0"),
        ("A nan AH\n", ":1: probability nan"),
        ("A 0.5\n", ":1: 'A 0.5' has no phones"),
        ("A AH\n", ":1: 'AH' where a lexiconp.txt has a probability"),
        ("A 0.5 AH\nA 0.6 AH\n", ":2: A AH has probability 0.6 here and 0.5 before"),
    ],
)
def test_bad_probabilities_name_the_line(tmp_path, text, says):
    with pytest.raises(LexiconError, match=r"lexiconp\.txt" + says):
        read_lexicon(write(tmp_path, text, "lexiconp.txt"))


def test_another_encoding_is_refused(tmp_path):
    """Words of another encoding than the transcripts' would be other words."""
    with pytest.raises(TextFileError, match=r"lexicon\.txt:2: byte 0xfc is not UTF-8"):
        read_lexicon(write(tmp_path, "A AH\n\u00fcber Y B\n".encode("latin-1")))


def test_probabilities_of_silence_are_not_read(tmp_path):
    with pytest.raises(LexiconError, match="give lexiconp.txt or lexicon.txt"):
        read_lexicon(write(tmp_path, "A 1 0.5 1 1 AH\n", "lexiconp_silprob.txt"))


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
