"""Word times: from scores that leave one path, against all paths, and from files with faults."""

import itertools
import math

import kaldiio
import numpy as np
import pytest
from hybrid.small_world import (
    PHONES,
    STATES,
    WORDS,
    monophone_tree,
    pdfs_of,
    triphone_tree_bytes,
    write_gmm,
    write_lang,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from espnet_quant4.bin import hybrid_ctm
from espnet_quant4.bin.command import run_command
from espnet_quant4.hybrid.decode.word_times import (
    AlignmentOptions,
    read_pronunciations,
    split_phones,
    timed_words,
    word_frames,
)
from espnet_quant4.hybrid.kaldi import kaldifst
from espnet_quant4.hybrid.kaldi_files.tree import read_tree
from espnet_quant4.hybrid.lang.lang_directory import Lang
from espnet_quant4.hybrid.lang.lexicon import Pronunciation
from espnet_quant4.hybrid.lang.lexicon_fst import lexicon_fst_text
from espnet_quant4.report.ctm import Segment, read_ctm

SIL, A, B = (PHONES[name] for name in ("SIL", "A", "B"))
LEXICON = [
    Pronunciation("a", 1.0, ("A",)),
    Pronunciation("a", 0.5, ("A", "B")),
    Pronunciation("ab", 1.0, ("A", "B")),
    Pronunciation("b", 1.0, ("B",)),
    Pronunciation("bee", 1.0, ("B",)),
    Pronunciation("bee", 0.3, ("B", "A", "B")),
]
SCALE = 0.5
WIDE = AlignmentOptions(SCALE, 200.0, 400.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A lang folder with several pronunciations a word, and a model of triphones."""
    folder = tmp_path_factory.mktemp("world")
    write_lang(folder / "lang")
    lines = [f"{e.word} {e.probability:g} {' '.join(e.phones)}\n" for e in LEXICON]
    (folder / "lang/lexiconp.txt").write_text("".join(lines))
    text = lexicon_fst_text([(entry, 0) for entry in LEXICON], PHONES, WORDS, "SIL", 0.5)
    fst = kaldifst().compile(text, acceptor=False)
    kaldifst().arcsort(fst, sort_type="olabel")
    fst.write(str(folder / "lang/L.fst"))
    write_gmm(folder / "tri", triphone_tree_bytes())
    return folder


def certain(world, segments):
    """Scores that leave one path: that of these phones, each with its number of frames."""
    pdfs = iter(pdfs_of([phone for phone, _ in segments], read_tree(world / "tri/tree")))
    rows = []
    for phone, frames in segments:
        states = STATES[phone]
        # The last state takes what is over.
        for frames_of_state in [1] * (states - 1) + [frames - states + 1]:
            rows += [next(pdfs)] * frames_of_state
    return 100 * np.eye(9, dtype=np.float32)[rows]


def ctm(world, output, text, matrices, *more):
    """Run the command on these hypotheses and scores; returns its status."""
    output.mkdir(exist_ok=True)
    (output / "text").write_text("".join(f"{line}\n" for line in text))
    with kaldiio.WriteHelper(f"ark,scp:{output}/scores.ark,{output}/scores.scp") as writer:
        for key, matrix in matrices.items():
            writer(key, matrix)
    options = ["--text", output / "text", "--scores", output / "scores.scp", "--output", output]
    options += ["--lang", world / "lang", "--model", world / "tri", *more]
    return run_command("hybrid-ctm", hybrid_ctm.main, [str(option) for option in options])


def test_times_are_those_of_the_only_path(world, tmp_path, capsys):
    matrices = {
        "u1": certain(world, [(SIL, 4), (A, 3), (B, 5), (SIL, 2), (B, 6)]),
        "u2": certain(world, [(B, 2), (A, 2), (B, 3), (A, 7), (SIL, 3)]),
        "u3": certain(world, [(SIL, 5)]),
    }
    assert ctm(world, tmp_path, ["u1 ab b", "u2 bee a", "u3"], matrices) == 0
    assert (tmp_path / "ctm").read_text() == (
        "u1 1 0.040 0.080 ab\nu1 1 0.140 0.060 b\nu2 1 0.000 0.070 bee\nu2 1 0.070 0.070 a\n"
    )
    assert (tmp_path / "ctm_spread.txt").read_text() == ""
    assert "ctm: 4 words of 2 utterances\n" in capsys.readouterr().out


@pytest.mark.parametrize("channels", ["reco2file_and_channel", "other"])
def test_times_are_those_of_the_call_where_segments_are_given(world, tmp_path, channels):
    matrices = {
        "u1": certain(world, [(SIL, 40), (A, 30), (B, 52)]),
        "u2": certain(world, [(B, 20), (SIL, 10)]),
    }
    (tmp_path / "call_segments").write_text("u1 call-1 10.50 11.70\nu2 call-1 2.0 2.3\n")
    (tmp_path / channels).write_text("call-1 en_1 B\n")
    more = ["--segments", tmp_path / "call_segments"]
    more += ["--channels", tmp_path / channels] if channels == "other" else []
    assert ctm(world, tmp_path, ["u1 a b", "u2 b"], matrices, *more) == 0
    # The two frames that the segment is shorter by are cut off.
    assert (tmp_path / "ctm").read_text() == (
        "en_1 B 2.000 0.200 b\nen_1 B 10.900 0.300 a\nen_1 B 11.200 0.500 b\n"
    )


def test_what_cannot_be_aligned_is_spread_evenly_and_listed(world, tmp_path, capsys):
    good = certain(world, [(A, 4), (B, 4)])
    bad = good.copy()
    bad[3, 2] = np.nan
    text = ["short a a", "bad a b", "good a b", "none a"]
    matrices = {"short": good[:3], "bad": bad, "good": good, "none": good[:0]}
    assert ctm(world, tmp_path, text, matrices) == 0
    assert (tmp_path / "ctm_spread.txt").read_text() == (
        "bad the scores hold NaN or infinite values\nnone no frame\n"
        "short no path within a beam of 40\n"
    )
    assert "words of 3 utterances are spread evenly" in capsys.readouterr().out
    assert (tmp_path / "ctm").read_text() == (
        "bad 1 0.000 0.040 a\nbad 1 0.040 0.040 b\ngood 1 0.000 0.040 a\ngood 1 0.040 0.040 b\n"
        "none 1 0.000 0.000 a\nshort 1 0.000 0.015 a\nshort 1 0.015 0.015 a\n"
    )


def test_a_wider_beam_is_tried_where_the_first_finds_no_path(world):
    # Silence throughout: paths that leave it cost more at once. Twenty stay whatever the beam.
    scores, words = {"u": certain(world, [(SIL, 60)])}, ["ab"] * 12
    found = [
        word_frames(scores, {"u": words}, Lang(world / "lang"), world / "tri", options)
        for options in (AlignmentOptions(1, 1, 2), AlignmentOptions(1, 1, 1e5))
    ]
    assert found[0].failed == {"u": "no path within a beam of 2"} and not found[0].spans
    assert not found[1].failed and len(found[1].spans["u"]) == len(words)


def all_paths(words, tree, scores):
    """The cost of the best path of each list of word spans, by trying all paths."""
    frames = len(scores)
    stay, leave = (-0.1 * math.log(p) for p in (0.6, 0.4))
    best = {}
    variants = [[entry for entry in LEXICON if entry.word == word] for word in words]
    for chosen in itertools.product(*variants):
        for pauses in itertools.product([0, 1], repeat=len(words) + 1):
            phones, places = [SIL] * pauses[0], []
            for entry, pause in zip(chosen, pauses[1:], strict=True):
                places.append((len(phones), len(phones) + len(entry.phones)))
                phones += [PHONES[p] for p in entry.phones] + [SIL] * pause
            pdfs = list(pdfs_of(phones, tree))
            first_state = np.cumsum([0, *(STATES[phone] for phone in phones)])
            graph = -sum(math.log(entry.probability) for entry in chosen)
            graph += math.log(2) * len(pauses) + leave * len(pdfs) + stay * (frames - len(pdfs))
            for cuts in itertools.combinations(range(1, frames), len(pdfs) - 1):
                begins = [0, *cuts, frames]
                path = np.repeat(pdfs, np.diff(begins))
                cost = graph - SCALE * float(scores[np.arange(frames), path].sum())
                spans = tuple((begins[first_state[i]], begins[first_state[j]]) for i, j in places)
                best[spans] = min(cost, best.get(spans, math.inf))
    return best


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    words=st.lists(st.sampled_from(["a", "ab", "b", "bee"]), max_size=2),
    frames=st.integers(1, 9),
    seed=st.integers(0, 2**16),
)
def test_times_are_those_of_the_best_of_all_paths(world, words, frames, seed):
    rng = np.random.default_rng(seed)
    scores = np.log(rng.dirichlet(np.full(9, 0.5), size=frames) + 1e-6).astype(np.float32)
    found = word_frames({"u": scores}, {"u": words}, Lang(world / "lang"), world / "tri", WIDE)
    every = all_paths(words, read_tree(world / "tri/tree"), scores) if words else {}
    if every:
        assert every[tuple(found.spans["u"])] == pytest.approx(min(every.values()), abs=1e-2)
    else:
        assert list(found.failed) == (["u"] if words else [])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    words=st.lists(st.sampled_from(["a", "ab", "b", "bee"]), max_size=8),
    frames=st.integers(1, 60),
    start=st.floats(0, 2000),
    shorter=st.integers(0, 2),
    seed=st.integers(0, 2**16),
)
def test_times_run_forward_within_the_utterance(world, words, frames, start, shorter, seed):
    rng = np.random.default_rng(seed)
    scores = rng.normal(scale=5, size=(frames, 9)).astype(np.float32)
    segment = Segment("call", "A", start, start + 0.01 * max(1, frames - shorter))
    found = word_frames({"u": scores}, {"u": words}, Lang(world / "lang"), world / "tri")
    timed = timed_words({"u": words}, found, {"u": segment})
    assert [word.word for word in timed] == words
    assert {(word.call, word.channel) for word in timed} <= {("call", "A")}
    last = round(segment.start, 3)
    for word in timed:
        assert word.start >= last - 1e-6 and word.duration >= 0
        last = word.start + word.duration
    assert last <= round(segment.end, 3) + 1e-6


def test_of_several_splits_the_likelier_pronunciations_count(world):
    known = read_pronunciations(Lang(world / "lang"))
    assert split_phones([A, B, B], ["a", "b"], known, SIL) == [(0, 2), (2, 3)]
    phones = [SIL, B, A, B, SIL, A]
    assert split_phones(phones, ["bee", "a"], known, SIL) == [(1, 4), (5, 6)]
    # "a" as A is likelier than as A B, but here the other word is then less likely by more.
    both = {"x": [(0.0, (A,)), (0.7, (A, B))], "y": [(1.2, (B, B)), (0.0, (B,))]}
    assert split_phones([A, B, B], ["x", "y"], both, SIL) == [(0, 2), (2, 3)]
    assert split_phones(
        [A, B, B], ["x", "y"], {**both, "y": [(0.1, (B, B)), (0.0, (B,))]}, SIL
    ) == [
        (0, 1),
        (1, 3),
    ]


def test_silence_may_be_a_word_of_its_own(world):
    known = {"pause": [(0.0, (SIL,))], "a": [(0.0, (A,))]}
    assert split_phones([SIL, A], ["pause", "a"], known, SIL) == [(0, 1), (1, 2)]
    assert split_phones([SIL, A, SIL], ["a"], known, SIL) == [(1, 2)]
    assert split_phones([A, SIL, SIL], ["a"], known, SIL) is None
    assert split_phones([A], ["a", "pause"], known, SIL) is None
    assert split_phones([], [], known, SIL) == []


def test_hypotheses_of_another_lexicon_or_search_are_refused(world, tmp_path, capsys):
    good = certain(world, [(A, 4), (B, 4)])
    assert ctm(world, tmp_path, ["u1 a b", "u2 a see"], {"u1": good, "u2": good}) == 1
    assert "u2: word 'see' has no pronunciation in" in capsys.readouterr().err
    assert ctm(world, tmp_path, ["u1 a b", "u2 #0"], {"u1": good, "u2": good}) == 1
    assert "u2: word '#0' has no pronunciation" in capsys.readouterr().err
    assert ctm(world, tmp_path, ["u1 a b", "u2 a", "u3"], {"u1": good}) == 1
    assert "1 of 2 hypotheses have no scores, such as u2" in capsys.readouterr().err
    assert ctm(world, tmp_path, ["u1 a", "u1 b"], {"u1": good}) == 1
    assert "'u1' stands here and in line 1" in capsys.readouterr().err
    assert not (tmp_path / "ctm").exists()


def test_scores_and_models_of_another_tree_are_refused(world, tmp_path, capsys):
    other = {"u1": np.zeros((8, 12), dtype=np.float32)}
    assert ctm(world, tmp_path, ["u1 a b"], other) == 1
    assert "u1: scores of shape (8, 12), but" in (said := capsys.readouterr().err)
    assert "tri/tree has 9 pdfs" in said
    mixed = write_gmm(tmp_path / "mixed")
    (mixed / "tree").write_bytes(triphone_tree_bytes())
    assert ctm(world, tmp_path, ["u1 a b"], other, "--model", mixed) == 1
    assert "tree and model are not of one training" in capsys.readouterr().err
    mono = write_gmm(tmp_path / "mono")
    pdfs = monophone_tree().num_pdfs
    scores = {"u1": np.zeros((8, pdfs), dtype=np.float32)}
    assert ctm(world, tmp_path, ["u1 a b"], scores, "--model", mono) == 0
    lang = write_lang(tmp_path / "lang")
    lang.joinpath("lexiconp.txt").write_text("a 1 A\nb 1 Z\n")
    with open(lang / "phones.txt", "a") as phones:
        phones.write("Z 9\n")
    assert ctm(world, tmp_path, ["u1 a"], scores, "--model", mono, "--lang", lang) == 1
    assert "mono/final.mdl lacks phones of" in (said := capsys.readouterr().err)
    assert f"{lang}: Z. Take the lang" in said


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("u2 call-A 0 1", "u1: no line in segments"),
        ("u1 call-A 0 1", "u1: 0.08 s of scores, but 1.00 s in segments; they may differ by 0.1 s"),
        ("u1 call 0 1", "recording call ends in neither -A"),
    ],
)
def test_segments_of_other_data_are_refused(world, tmp_path, capsys, row, message):
    (tmp_path / "segments").write_text(f"{row}\n")
    scores = {"u1": certain(world, [(A, 4), (B, 4)])}
    assert ctm(world, tmp_path, ["u1 ab"], scores, "--segments", tmp_path / "segments") == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["acoustic_scale", "beam", "retry_beam"])
def test_options_that_make_no_sense(world, tmp_path, capsys, name):
    scores = {"u1": certain(world, [(A, 4), (B, 4)])}
    assert ctm(world, tmp_path, ["u1 ab"], scores, f"--{name}", "0") == 1
    assert f"{name} 0.0: valid are numbers above 0" in capsys.readouterr().err


def test_the_hub5_scorer_reads_it(world, tmp_path):
    scores = {"u1": certain(world, [(A, 4), (B, 4)])}
    assert ctm(world, tmp_path, ["u1 ab"], scores) == 0
    assert [(w.word, w.start, w.duration) for w in read_ctm(tmp_path / "ctm")] == [("ab", 0, 0.08)]
