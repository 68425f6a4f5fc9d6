import pytest
from hybrid.tone_corpus import LEXICON, write_corpus

from espnet_quant4.bin import hybrid_lang
from espnet_quant4.hybrid.kaldi import kaldi_hmm_gmm, kaldifst
from espnet_quant4.hybrid.lang.lang_directory import Lang, prepare_lang, read_transcripts
from espnet_quant4.hybrid.lang.lexicon import LexiconError


@pytest.fixture
def lang(tmp_path):
    data = write_corpus(tmp_path, 4)
    prepare_lang(tmp_path / "lexicon.txt", tmp_path / "lang", read_transcripts(data / "text"))
    return Lang(tmp_path / "lang")


def test_symbols_and_kinds(lang):
    assert list(lang.phones)[:3] == ["<eps>", "SIL", "SPN"]
    assert list(lang.words)[-3:] == ["#0", "<s>", "</s>"]
    assert set(LEXICON) <= set(lang.words)
    by_kind = [set(lang.ids(kind)) for kind in ("silence", "nonsilence", "disambig")]
    assert set.union(*by_kind) == set(lang.phones.values()) - {0}
    assert sum(map(len, by_kind)) == len(lang.phones) - 1


def test_kaldi_reads_the_topology(lang):
    topology = kaldi_hmm_gmm().HmmTopology()
    topology.read(lang.topology)
    classes = topology.get_phone_to_num_pdf_classes()
    assert [classes[phone] for phone in lang.ids("silence")] == [5, 5]
    assert {classes[phone] for phone in lang.ids("nonsilence")} == {3}


def accepts(fst, phones):
    """The cheapest word sequence that a phone sequence stands for, or None."""
    fsts = kaldifst()
    lines = [f"{i} {i + 1} {p} {p} 0" for i, p in enumerate(phones)] + [f"{len(phones)} 0"]
    acceptor = fsts.compile("\n".join(lines) + "\n", acceptor=False)
    fsts.arcsort(acceptor, sort_type="olabel")
    fsts.arcsort(fst, sort_type="ilabel")
    best = fsts.shortest_path(fsts.compose(acceptor, fst), n=1)
    found, _, words, _ = fsts.get_linear_symbol_sequence(best)
    return words if found and best.num_states else None


def test_lexicon_fst_turns_phones_into_words(lang):
    fst = kaldifst().StdVectorFst.read(str(lang.folder / "L.fst"))
    ids = lambda *names: [lang.phones[name] for name in names]  # noqa: E731
    words = lambda *names: [lang.words[name] for name in names]  # noqa: E731
    assert accepts(fst, ids("S", "IY", "M", "IY")) == words("SEE", "ME")
    assert accepts(fst, ids("SIL", "M", "AA", "S", "SIL", "AA", "M")) == words("MASS", "AM")
    assert accepts(fst, ids("S", "S")) is None


def test_unknown_words_are_counted_mapped_or_refused(tmp_path):
    data = write_corpus(tmp_path, 2)
    transcripts = {"u1": ["SEE", "THE"], "u2": ["THE", "SEA"]}
    lexicon = tmp_path / "lexicon.txt"
    unknown = prepare_lang(lexicon, tmp_path / "lang", transcripts)
    assert unknown == {"THE": 2, "SEA": 1}
    assert (tmp_path / "lang" / "oov_counts.txt").read_text() == "THE 2\nSEA 1\n"
    lang = Lang(tmp_path / "lang")
    assert lang.word_ids(["SEE", "THE"]) == [lang.words["SEE"], lang.words["<UNK>"]]
    with pytest.raises(LexiconError, match=r"2 words .* 3 times .*THE \(2\).*--oov map"):
        prepare_lang(lexicon, tmp_path / "other", transcripts, oov="refuse")
    assert data.exists()


def test_own_topology_must_have_all_phones(lang, tmp_path):
    text = lang.topology.replace(f" {lang.phones['IY']} ", " ")
    (tmp_path / "topo").write_text(text)
    with pytest.raises(LexiconError, match="phones that .*topo lacks: IY"):
        prepare_lang(tmp_path / "lexicon.txt", tmp_path / "l2", {}, topology=tmp_path / "topo")


def test_command(tmp_path, capsys):
    data = write_corpus(tmp_path, 2)
    options = ["--lexicon", str(tmp_path / "lexicon.txt"), "--output", str(tmp_path / "lang")]
    assert hybrid_lang.main([*options, "--text", str(data / "text")]) == 0
    assert hybrid_lang.main([*options, "--text", str(tmp_path / "none")]) == 1
    assert "none" in capsys.readouterr().err
