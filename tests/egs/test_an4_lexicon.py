"""AN4's dictionary as a Kaldi lexicon, from both layouts of the corpus."""

import sys

import pytest
from egs.recipes import load

an4 = load("an4/hybrid1/local/lexicon.py")

DICTIONARY = "YES  Y EH S\nA AH\nA(2)\tEY\n<sil> SIL\n++NOISE++ +NOISE+\n\nA(3) EY\n"


@pytest.fixture(params=["tables", "distribution"])
def corpus(request, tmp_path):
    folder = tmp_path / "an4"
    (folder / "etc").mkdir(parents=True)
    if request.param == "tables":
        (folder / "train.tsv").write_text("utt\tspeaker\ttext\n")
        (folder / "lexicon.txt").write_text(DICTIONARY)
    else:
        (folder / "etc" / "an4_train.transcription").write_text("")
        (folder / "etc" / "an4.dic").write_text(DICTIONARY)
    return folder


def run(monkeypatch, tmp_path, *arguments):
    command = ["lexicon.py", "--data", tmp_path / "data", "--downloads", tmp_path, *arguments]
    monkeypatch.setattr(sys, "argv", list(map(str, command)))
    return an4.main()


def test_second_pronunciations_lose_their_number(monkeypatch, tmp_path, capsys, corpus):
    assert run(monkeypatch, tmp_path, "--an4", corpus) == 0
    lexicon = tmp_path / "data/local/dict/lexicon.txt"
    assert lexicon.read_text() == "A AH\nA EY\nYES Y EH S\n"
    assert "2 words, 3 pronunciations, 5 phones" in capsys.readouterr().out


def test_a_lexicon_that_has_not_changed_keeps_its_time(monkeypatch, tmp_path, corpus):
    run(monkeypatch, tmp_path, "--an4", corpus)
    lexicon = tmp_path / "data/local/dict/lexicon.txt"
    before = lexicon.stat().st_mtime_ns
    run(monkeypatch, tmp_path, "--an4", corpus)
    assert lexicon.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("dictionary", "message"),
    [("YES Y EH S\nNO\n", "lexicon.txt:2: NO has no phones"), ("\n<s> SIL\n", "holds no word")],
)
def test_wrong_dictionaries_are_refused(monkeypatch, tmp_path, dictionary, message):
    (tmp_path / "train.tsv").write_text("")
    (tmp_path / "lexicon.txt").write_text(dictionary)
    with pytest.raises(SystemExit, match=message):
        run(monkeypatch, tmp_path, "--an4", tmp_path)


def test_a_corpus_without_dictionary_is_an_error(monkeypatch, tmp_path, capsys):
    (tmp_path / "train.tsv").write_text("")
    assert run(monkeypatch, tmp_path, "--an4", tmp_path) == 1
    shown = capsys.readouterr().err
    assert "no dictionary" in shown and "an4.dic" in shown and "WORD PHONE" in shown


def test_a_missing_corpus_is_an_error(monkeypatch, tmp_path, capsys):
    assert run(monkeypatch, tmp_path, "--an4", tmp_path) == 1
    assert "--local_data_opts" in capsys.readouterr().err
