import gzip
import re
import shutil

import kaldiio
import numpy as np
import pytest
from hybrid.tone_corpus import write_corpus

from espnet_quant4.bin import hybrid_gmm
from espnet_quant4.bin.command import run_command
from espnet_quant4.hybrid.decode.word_times import word_frames
from espnet_quant4.hybrid.features.extraction import FeatureError, compute_features, mfcc
from espnet_quant4.hybrid.gmm.acoustic_model import AcousticModel
from espnet_quant4.hybrid.gmm.alignment import read_alignments
from espnet_quant4.hybrid.gmm.features import load_features
from espnet_quant4.hybrid.gmm.phone_segments import TransitionTable, phone_segments
from espnet_quant4.hybrid.gmm.stages import GmmError, align_data, log_likelihoods
from espnet_quant4.hybrid.lang.lang_directory import Lang, prepare_lang, read_transcripts

# Everything here runs on one small system, trained once.
UTTERANCES = 60


def read_table(path):
    rows = (line.split(maxsplit=1) for line in path.read_text().splitlines())
    return {row[0]: row[1].strip() for row in rows}


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gmm")
    data = write_corpus(folder, UTTERANCES)
    prepare_lang(folder / "lexicon.txt", folder / "lang", read_transcripts(data / "text"))
    options = ["--data", str(data), "--lang", str(folder / "lang"), "--iterations", "30"]
    assert (
        hybrid_gmm.main(["mono", *options, "--output", str(folder / "mono"), "--gaussians", "60"])
        == 0
    )
    triphone = ["triphone", *options, "--alignments", str(folder / "mono"), "--leaves", "30"]
    for name, lda in (("tri", "false"), ("lda", "true")):
        extra = ["--output", str(folder / name), "--gaussians", "80", "--lda", lda]
        assert hybrid_gmm.main([*triphone, *extra]) == 0
    return folder


@pytest.mark.parametrize("name", ["mono", "tri", "lda"])
def test_alignments_follow_the_tones(system, name):
    """Frames of a word's phone lie where its tone is."""
    lang = Lang(system / "lang")
    model = AcousticModel.read(system / name)
    table = TransitionTable.of(model.transitions)
    names = {number: phone for phone, number in lang.phones.items()}
    aligned = read_alignments(system / name)
    assert len(aligned.ids) == UTTERANCES
    transcripts = read_transcripts(system / "data" / "text")
    lexicon = read_table(system / "lexicon.txt")
    truth = read_table(system / "data" / "phones")
    right = []
    for utterance, ids in aligned.ids.items():
        segments = phone_segments(ids, table)
        spoken = [names[phone] for phone, _, _ in segments if names[phone] != "SIL"]
        assert spoken == " ".join(lexicon[word] for word in transcripts[utterance]).split()
        found = [names[phone] for phone, begin, end in segments for _ in range(begin, end)]
        right += [a == b for a, b in zip(found, truth[utterance].split(), strict=True)]
    assert np.mean(right) > 0.9


def test_model_survives_writing_and_reading(system, tmp_path):
    model = AcousticModel.read(system / "tri")
    model.write(tmp_path)
    again = AcousticModel.read(tmp_path)
    assert (tmp_path / "tree").read_bytes() == (system / "tri" / "tree").read_bytes()
    np.testing.assert_array_equal(again.id2pdf, model.id2pdf)
    np.testing.assert_allclose(again.transitions.log_probs, model.transitions.log_probs, atol=1e-5)
    np.testing.assert_allclose(
        again.transitions.non_self_loop_log_probs[1:],
        model.transitions.non_self_loop_log_probs[1:],
        atol=1e-3,
    )
    frame = np.zeros(39, dtype=np.float32)
    for pdf in range(model.num_pdfs):
        mine = model.mixtures.get_pdf(pdf).log_likelihood(frame)
        assert again.mixtures.get_pdf(pdf).log_likelihood(frame) == pytest.approx(mine, rel=1e-4)


def test_scores_are_log_likelihoods(system, tmp_path):
    options = ["--data", str(system / "data"), "--model", str(system / "tri")]
    assert hybrid_gmm.main(["scores", *options, "--output", str(tmp_path)]) == 0
    scores = kaldiio.load_scp(str(tmp_path / "scores.scp"))
    model = AcousticModel.read(system / "tri")
    features = dict(load_features(system / "data", system / "data" / "mfcc"))
    utterance = next(iter(features))
    assert scores[utterance].shape == (len(features[utterance]), model.num_pdfs)
    for frame in (0, 20):
        for pdf in range(model.num_pdfs):
            wanted = model.mixtures.get_pdf(pdf).log_likelihood(features[utterance][frame])
            assert scores[utterance][frame, pdf] == pytest.approx(wanted, rel=1e-3, abs=1e-2)


def test_realignment_with_good_scores_gives_the_alignment_back(system, tmp_path):
    """Scores that favour the aligned pdfs lead back to them."""
    align_data(system / "data", Lang(system / "lang"), system / "tri", tmp_path / "ali")
    rows = read_table(tmp_path / "ali" / "pdf_ids")
    num_pdfs = AcousticModel.read(system / "tri").num_pdfs
    with kaldiio.WriteHelper(f"ark,scp:{tmp_path}/s.ark,{tmp_path}/s.scp") as writer:
        for utterance, ids in rows.items():
            writer(utterance, 20 * np.eye(num_pdfs, dtype=np.float32)[list(map(int, ids.split()))])
    options = ["--data", str(system / "data"), "--lang", str(system / "lang"), "--model",
               str(system / "tri"), "--scores", f"{tmp_path}/s.scp"]  # fmt: skip
    assert hybrid_gmm.main(["realign", *options, "--output", str(tmp_path / "re")]) == 0
    again = read_table(tmp_path / "re" / "pdf_ids")
    assert again == rows


def test_times_of_words_follow_the_tones(system):
    """A word's frames are those of its phones' tones, and silence is in no word."""
    texts = read_transcripts(system / "data" / "text")
    scores = log_likelihoods(system / "data", system / "tri")
    found = word_frames(scores, texts, Lang(system / "lang"), system / "tri")
    assert not found.failed and found.spans.keys() == texts.keys()
    lexicon = read_table(system / "lexicon.txt")
    right = []
    for utterance, line in read_table(system / "data" / "phones").items():
        wanted = [{"SIL"} for _ in line.split()]
        for word, (begin, end) in zip(texts[utterance], found.spans[utterance], strict=True):
            wanted[begin:end] = [set(lexicon[word].split())] * (end - begin)
        right += [label in phones for label, phones in zip(line.split(), wanted, strict=True)]
    assert np.mean(right) > 0.95


def test_alignment_folder_is_complete(system, tmp_path):
    align_data(system / "data", Lang(system / "lang"), system / "tri", tmp_path)
    counts = [int(n) for n in (tmp_path / "pdf_counts").read_text().strip("[] \n").split()]
    assert sum(counts) == sum(len(ids.split()) for ids in read_table(tmp_path / "pdf_ids").values())
    assert len(counts) == int((tmp_path / "num_pdfs").read_text())
    with gzip.open(tmp_path / "ali.1.gz", "rt") as lines:
        assert len(lines.readlines()) == UTTERANCES
    assert (tmp_path / "tree").exists() and (tmp_path / "final.mdl").exists()


def test_what_fails_is_left_out_and_listed(system, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for name in ("wav.scp", "utt2spk"):
        (data / name).write_text((system / "data" / name).read_text())
    lines = (system / "data" / "text").read_text().splitlines()
    utterances = [line.split()[0] for line in lines]
    lines[0] = utterances[0]  # an empty transcript
    lines[1] = f"{utterances[1]} " + "MASS " * 60  # more words than frames
    (data / "text").write_text("\n".join(lines[:-1]) + "\n")  # and one without
    result = align_data(data, Lang(system / "lang"), system / "tri", tmp_path / "ali")
    failed = read_table(tmp_path / "ali" / "failed.txt")
    assert failed == {
        utterances[0]: "empty transcript",
        utterances[1]: "no path within a beam of 40",
        utterances[-1]: "no transcript",
    }
    assert len(result.ids) == UTTERANCES - 3
    (data / "text").write_text("")
    with pytest.raises(GmmError, match="no utterance could be aligned"):
        align_data(data, Lang(system / "lang"), system / "tri", tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "left", "says"),
    [
        ("ali.1.gz", -20, "ali.1.gz: no archive of alignments, or damaged"),
        ("ali.1.gz", 0, "no utterance"),
        ("tree", -20, "tree"),
        ("final.mdl", -200, "mixtures, but .* pdfs by|is damaged"),
        ("final.mdl", 300, "final.mdl"),
    ],
)
def test_a_model_that_is_cut_off_is_named_in_a_line(system, tmp_path, capsys, name, left, says):
    shutil.copytree(system / "mono", tmp_path / "mono")
    path = tmp_path / "mono" / name
    path.write_bytes(path.read_bytes()[:left])
    options = ["--data", system / "data", "--lang", system / "lang", "--alignments",
               tmp_path / "mono", "--output", tmp_path / "tri"]  # fmt: skip
    arguments = ["triphone", *map(str, options)]
    assert run_command("hybrid-gmm", hybrid_gmm.main, arguments) == 1
    (message,) = [line for line in capsys.readouterr().err.splitlines() if "espnet-quant4" in line]
    assert re.search(says, message)


@pytest.mark.parametrize("left", [0, 30, 100, -7])
def test_a_lexicon_that_is_cut_off_is_named_in_a_line(system, tmp_path, capsys, left):
    shutil.copytree(system / "lang", tmp_path / "lang")
    path = tmp_path / "lang" / "L.fst"
    path.write_bytes(path.read_bytes()[:left])
    options = ["--data", system / "data", "--lang", tmp_path / "lang", "--model", system / "tri"]
    arguments = ["align", *map(str, options), "--output", str(tmp_path / "ali")]
    assert run_command("hybrid-gmm", hybrid_gmm.main, arguments) == 1
    assert "L.fst: no FST in OpenFst's binary form" in capsys.readouterr().err


def test_words_without_pronunciation_are_told_of_with_their_share(system, tmp_path, caplog):
    data = tmp_path / "data"
    shutil.copytree(system / "data", data)
    (data / "text").write_text((system / "data" / "text").read_text().replace("MASS", "mass"))
    align_data(data, Lang(system / "lang"), system / "tri", tmp_path / "ali")
    assert "as MASS for mass: write lexicon and transcripts in the same case" in caplog.text


def test_audio_that_is_not_there_is_named(tmp_path):
    (tmp_path / "wav.scp").write_text("u1 /nowhere/u1.wav\n")
    with pytest.raises(FeatureError, match=r"u1: /nowhere/u1.wav"):
        compute_features(tmp_path, tmp_path / "mfcc", mfcc)
