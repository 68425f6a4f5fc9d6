import pytest
from hybrid.tone_corpus import LEXICON, write_corpus

from espnet_quant4.bin import hybrid_lang
from espnet_quant4.bin.command import run_command
from espnet_quant4.hybrid.kaldi import kaldi_hmm_gmm, kaldifst
from espnet_quant4.hybrid.kaldi_files.tokens import KaldiFileError
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
    unknown = prepare_lang(lexicon, tmp_path / "lang", transcripts, max_oov_share=1)
    assert unknown == {"THE": 2, "SEA": 1}
    assert (tmp_path / "lang" / "oov_counts.txt").read_text() == "THE 2\nSEA 1\n"
    lang = Lang(tmp_path / "lang")
    assert lang.word_ids(["SEE", "THE"]) == [lang.words["SEE"], lang.words["<UNK>"]]
    with pytest.raises(LexiconError, match=r"2 words .* 3 times .*THE \(2\).*--oov map"):
        prepare_lang(lexicon, tmp_path / "other", transcripts, oov="refuse")
    assert data.exists()


def test_own_topology_must_have_all_phones(lang, tmp_path):
    head, _, rest = lang.topology.partition("</ForPhones>")
    text = head.replace(f" {lang.phones['IY']} ", " ") + "</ForPhones>" + rest
    (tmp_path / "topo").write_text(text)
    with pytest.raises(LexiconError, match="phones that .*topo lacks: IY"):
        prepare_lang(tmp_path / "lexicon.txt", tmp_path / "l2", {}, topology=tmp_path / "topo")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda topo: "hello\n", "'hello' at byte 0 where <Topology>"),
        (lambda topo: topo.replace("0.25", "0.5"), "transitions that add up to 1"),
        (lambda topo: topo.replace("<Transition> 3", "<Transition> 8"), "transitions to .*8"),
        (lambda topo: topo[: len(topo) // 2], "topo"),
    ],
    ids=["no topology", "sum", "target", "cut off"],
)
def test_an_own_topology_that_is_none_is_refused(lang, tmp_path, change, says):
    (tmp_path / "topo").write_text(change(lang.topology))
    with pytest.raises(KaldiFileError, match=says):
        prepare_lang(tmp_path / "lexicon.txt", tmp_path / "l2", {}, topology=tmp_path / "topo")


def test_many_unknown_words_stop_and_case_is_named(tmp_path):
    write_corpus(tmp_path, 2)
    lexicon = tmp_path / "lexicon.txt"
    transcripts = {"u1": ["see", "me", "mass"], "u2": ["SEE", "am"]}
    with pytest.raises(LexiconError, match=r"80\.0% of 5, .*as SEE for see: .*--max_oov_share 1"):
        prepare_lang(lexicon, tmp_path / "lang", transcripts)
    assert not (tmp_path / "lang").exists()
    with pytest.raises(LexiconError) as error:
        prepare_lang(lexicon, tmp_path / "lang", {"u1": ["THE", "SEE"]})
    assert "case" not in str(error.value)
    few = {"u1": ["SEE", "ME", "AM", "SEE", "the"]}
    assert prepare_lang(lexicon, tmp_path / "lang", few) == {"the": 1}


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("unknown_word", "<s>", "the word '<s>' is reserved"),
        ("unknown_word", "no word", "'no word'; valid is one word"),
        ("unknown_word", "", "valid is one word"),
        ("silence_probability", 1.0, "--silence_probability 1; valid"),
        ("max_oov_share", 20, "--max_oov_share 20; valid are numbers from 0 to 1"),
        ("oov", "drop", "valid: map, refuse"),
    ],
)
def test_options_that_make_no_sense(tmp_path, option, value, says):
    write_corpus(tmp_path, 2)
    with pytest.raises(LexiconError, match=says):
        prepare_lang(tmp_path / "lexicon.txt", tmp_path / "lang", {}, **{option: value})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("u1 A\nu2 A #0\n", ":2: u2: the word '#0' is reserved"),
        ("u1 A\nu1 B\n", ":2: 'u1' stands here and in line 1"),
        ("u1 A B\u00a0C\n", ":1: white space U\\+00A0"),
    ],
)
def test_transcripts_that_no_graph_can_hold(tmp_path, text, says):
    (tmp_path / "text").write_text(text)
    with pytest.raises(ValueError, match="text" + says):
        read_transcripts(tmp_path / "text")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("phones.txt", "<eps> 0\nA 1\nB 1\n", "'A' and 'B' both have number 1"),
        ("words.txt", "<eps> 3\nA 1\n", "<eps> has number 3; it must have 0"),
        ("oov.txt", "NOBODY\n", "'NOBODY' is not in .*words.txt"),
        ("phones/silence.txt", "SIL\nQ\n", "Q not in .*phones.txt"),
    ],
)
def test_a_lang_folder_that_does_not_fit_together_is_refused(lang, name, content, says):
    (lang.folder / name).write_text(content)
    with pytest.raises(LexiconError, match=says):
        Lang(lang.folder).word_ids(["SEE"])
        Lang(lang.folder).ids("silence")


def test_command(tmp_path, capsys):
    data = write_corpus(tmp_path, 2)
    options = ["--lexicon", str(tmp_path / "lexicon.txt"), "--output", str(tmp_path / "lang")]

    def run(*more):
        arguments = [*options, "--text", str(data / "text"), *more]
        return run_command("hybrid-lang", hybrid_lang.main, arguments)

    assert run() == 0
    assert run("--text", str(tmp_path / "none")) == 1
    assert "none" in capsys.readouterr().err
    # The old folder is still there, and current.
    assert run() == 0
    assert "there already" in capsys.readouterr().out
    assert run("--silence_probability", "0.4") == 0
    assert "made anew, since --silence_probability is 0.4, not 0.5" in capsys.readouterr().out
    (tmp_path / "lang/made_from.json").unlink()
    assert run() == 1
    assert "phones.txt, words.txt" in capsys.readouterr().err
