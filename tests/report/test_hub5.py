"""Scores of a Hub5 test: a small made-up one with known counts, random ones against sclite."""

import json
import random
import re
import subprocess
import sys
from collections import Counter

import pytest

from espnet_quant4.bin import score_hub5 as command
from espnet_quant4.bin.main import main
from espnet_quant4.report import hub5, sctk
from espnet_quant4.report.ctm import CtmWord, Segment, to_ctm
from espnet_quant4.report.scoring import Counts, ScoringError, score
from espnet_quant4.report.stm import read_stm


def installed():
    try:
        return bool(hub5.find_hubscr())
    except FileNotFoundError:
        return False


needs_sctk = pytest.mark.skipif(
    not installed(), reason="hubscr.pl (Debian's package sctk) is not here"
)

GLM = """\
;; a made-up global map
* name "made up"
* desc "made up"
* format = 'NIST1'
* max_nrules = '100'
* copy_no_hit = 'T'
* case_sensitive = 'F'
[UH] => [%HESITATION] / [ ] __ [ ]
[UM] => [%HESITATION] / [ ] __ [ ]
[CAN'T] => [{ CAN'T / CANNOT }] / [ ] __ [ ]
[GONNA] => [GOING TO] / [ ] __ [ ]
"""
HEADER = """\
;; CATEGORY "0" "" ""
;; LABEL "O" "Overall" "Overall"
;; LABEL "sw" "Switchboard" ""
;; LABEL "en" "CallHome" ""
"""
STM = (
    HEADER
    + """\
en_4156 A en_4156_A 0.00 2.00 <O,en> OH YEAH I CAN'T COME
en_4156 A en_4156_A 4.00 6.00 <O,en> (UH) { UH-HUH / YEAH } I B M
en_4156 B en_4156_B 1.00 2.00 <O,en> (%HESITATION)
sw_4390 A sw_4390_A 0.00 2.00 <O,sw> WELL- (TH-) THE MOTHER-IN-LAW ((%HESITATION)
sw_4390 B sw_4390_B 1.00 3.00 <O,sw> I'M GONNA <B_ASIDE> GO <E_ASIDE>
sw_4390 B sw_4390_B 3.00 4.00 <O,sw> IGNORE_TIME_SEGMENT_IN_SCORING
sw_4390 B sw_4390_B 6.00 7.00 <O,sw> YES
"""
)
SEGMENTS = """\
en-1 en_4156-A 0.00 2.10
en-2 en_4156-A 3.90 6.10
en-3 en_4156-B 0.90 2.10
sw-1 sw_4390-A 0.00 2.10
sw-2 sw_4390-B 0.90 3.00
sw-3 sw_4390-B 3.00 4.10
sw-4 sw_4390-B 5.90 7.10
"""
# Partial words, hesitations and noise are left out; sw-3 is not scored.
TEXT = """\
en-1 oh yeah i cannot come
en-2 yeah i._b._m. too
en-3 um
sw-1 the th- mother-in-law uh [laughter-yes]
sw-2 i'm going to stay
sw-3 anything at all
sw-4
"""
# WELL- deleted; GO as STAY; YES deleted.  UH-HUH or YEAH; TOO inserted; CAN'T or CANNOT.
# sclite counts an optional word that is absent as a correct one: two in each part.
SWITCHBOARD = {"words": 12, "correct": 9, "substitutions": 1, "deletions": 2, "insertions": 0}
CALLHOME = {"words": 11, "correct": 11, "substitutions": 0, "deletions": 0, "insertions": 1}


@pytest.fixture
def made_up(tmp_path):
    """The arguments of the command for a test set whose folder has a space in its name."""
    folder = tmp_path / "eval 2000"
    folder.mkdir()
    for name, content in (("stm", STM), ("glm", GLM), ("segments", SEGMENTS), ("text", TEXT)):
        (folder / name).write_text(content)
    return folder


def arguments(folder, **changed):
    paths = {name: folder / name for name in ("stm", "glm", "segments")}
    options = {**paths, "hyp": folder / "text", "output": folder / "scored", **changed}
    return [part for key, value in options.items() if value for part in (f"--{key}", str(value))]


def rows(folder):
    return {row["part"]: row for row in json.loads((folder / "scored/hub5.json").read_text())}


@needs_sctk
def test_both_parts_have_the_known_counts(made_up, capsys):
    assert command.main(arguments(made_up)) == 0
    found = rows(made_up)
    assert list(found) == ["Switchboard", "CallHome", "All", "Average"]
    for part, counts in (("Switchboard", SWITCHBOARD), ("CallHome", CALLHOME)):
        assert {key: found[part][key] for key in counts} == counts
    assert {key: found["All"][key] for key in SWITCHBOARD} == {
        key: SWITCHBOARD[key] + CALLHOME[key] for key in SWITCHBOARD
    }
    assert [found[part]["wer"] for part in found] == [25.0, 9.09, 17.39, 17.05]
    assert found["Average"]["words"] is None
    # Without the segment that is not scored.
    assert [found[part]["segments"] for part in ("Switchboard", "CallHome", "All")] == [3, 3, 6]
    assert [found[part]["wrong_segments"] for part in ("Switchboard", "CallHome")] == [3, 1]
    removed = {kind: found["Switchboard"][f"removed_{kind}"] for kind in hub5.REMOVED}
    assert removed == {"noise": 1, "hesitations": 1, "partial_words": 1}
    assert found["All"]["removed_hesitations"] == 2
    said = capsys.readouterr().out
    assert "stm: segments without marks of asides: 1" in said
    assert "left out of 21 recognized words: 1 noise, 2 hesitations, 1 partial words" in said
    assert re.search(r"\| Switchboard +\| 25.0 +\| 12 +\| 9 +\| 1 +\| 2 +\| 0 +\|", said)
    assert re.search(r"\| Average +\| 17.05 +\| - ", said)


@needs_sctk
def test_a_ctm_is_scored_as_the_text_that_it_was_made_of(made_up):
    assert command.main(arguments(made_up)) == 0
    of_text = rows(made_up)
    (made_up / "ctm").write_text((made_up / "scored/all/hyp.ctm").read_text())
    assert command.main(arguments(made_up, hyp=None, segments=None, ctm=made_up / "ctm")) == 0
    for part, row in rows(made_up).items():
        assert {key: row[key] for key in hub5.COLUMNS} == {
            key: of_text[part][key] for key in hub5.COLUMNS
        }


@needs_sctk
def test_the_command_runs_by_its_name(made_up):
    module = [sys.executable, "-m", "espnet_quant4.bin.main", "hub5"]
    done = subprocess.run([*module, *arguments(made_up)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert rows(made_up)["Switchboard"]["wer"] == 25.0


@needs_sctk
def test_words_in_gaps_are_insertions(made_up):
    (made_up / "stm").write_text("sw_1 A s 1 2 A B\nsw_1 A s 4 6 C D\n")
    (made_up / "ctm").write_text(
        "sw_1 A 0.1 0.1 before\nsw_1 A 1.0 0.5 a\nsw_1 A 1.5 0.5 b\nsw_1 A 2.8 0.2 gap\n"
        "sw_1 A 4.0 1.0 c\nsw_1 A 5.0 1.0 d\nsw_1 A 7.0 1.0 after\n"
    )
    changed = {"hyp": None, "segments": None, "ctm": made_up / "ctm", "parts": "Switchboard=sw_"}
    assert command.main(arguments(made_up, **changed)) == 0
    found = rows(made_up)
    assert list(found) == ["Switchboard"]
    counts = {key: found["Switchboard"][key] for key in SWITCHBOARD}
    expected = {"words": 4, "correct": 4, "substitutions": 0, "deletions": 0, "insertions": 3}
    assert counts == expected
    assert found["Switchboard"]["wer"] == 75.0


def random_test(number, seed, widened=0.1):
    """Return STM, segments widened into the silence around them, references and hypotheses."""
    draw = random.Random(seed)
    lines, segments, references, hypotheses = [HEADER], {}, {}, {}
    times = Counter()
    for index in range(number):
        call, channel = draw.choice(["sw_4390", "sw_4484", "en_4156"]), draw.choice("AB")
        start = times[call, channel] + 0.2
        end = times[call, channel] = round(start + draw.uniform(0.5, 4.0), 2)
        words = draw.choices(["one", "two", "three", "four", "five", "six"], k=draw.randint(1, 14))
        name = f"{call}-{index}"
        references[name] = words
        # A recognizer's: some words are others, some are missing, some are new.
        hypotheses[name] = [
            new
            for word in words
            for new in draw.choices([[word], ["two"], [], [word, "six"]], [7, 1, 1, 1])[0]
        ]
        segments[name] = Segment(call, channel, start - widened, end + widened)
        text = " ".join(words).upper()
        lines.append(f"{call} {channel} s {start:.2f} {end:.2f} <O,{call[:2]}> {text}\n")
    return "".join(lines), segments, references, hypotheses


def builtin_counts(references, hypotheses, prefix):
    alignments = score(references, hypotheses).counts
    return sum((c for name, c in alignments.items() if name.startswith(prefix)), Counts())


def own_totals(folder):
    """Return what sclite's detailed report and its alignments say of a run."""
    report = (folder / "hyp.ctm.filt.dtl").read_text()
    kinds = ("Total Error", "Correct", "Substitution", "Deletions", "Insertions")
    found = [
        int(re.search(rf"Percent {kind}\s*=\s*[\d.]+%\s*\(\s*(\d+)\)", report)[1]) for kind in kinds
    ]
    pattern = r"Scores: \(#C #S #D #I\) (\d+) (\d+) (\d+) (\d+)"
    alignments = re.findall(pattern, (folder / "hyp.ctm.filt.pra").read_text())
    sums = [sum(map(int, column)) for column in zip(*alignments, strict=True)]
    assert found == [sum(sums[1:]), *sums]
    return sums, len(alignments)


@needs_sctk
@pytest.mark.parametrize("seed", [0, 1])
def test_totals_are_those_of_sclite_and_of_the_built_in_scorer(tmp_path, seed):
    text, segments, references, hypotheses = random_test(120, seed)
    for name, content in (("stm", text), ("glm", GLM)):
        (tmp_path / name).write_text(content)
    stm = read_stm(tmp_path / "stm")
    words = hub5.place(hypotheses, segments, stm)
    found = hub5.score_hub5(stm, tmp_path / "glm", words, tmp_path / "scored")
    for row, prefix in zip(found, ("sw_", "en_", ""), strict=False):
        sums, number = own_totals(tmp_path / "scored" / row["part"].lower())
        counts = [row[key] for key in ("correct", "substitutions", "deletions", "insertions")]
        assert counts == sums
        assert row["segments"] == number
        expected = builtin_counts(references, hypotheses, prefix)
        assert counts == [
            expected.correct,
            expected.substitutions,
            expected.deletions,
            expected.insertions,
        ]
        assert row["words"] == expected.words > 100
        assert row["wrong_segments"] == expected.wrong_sentences


@needs_sctk
def test_words_spread_over_silence_would_be_counted_in_other_segments(tmp_path):
    text, segments, references, _ = random_test(80, seed=2)
    for name, content in (("stm", text), ("glm", GLM)):
        (tmp_path / name).write_text(content)
    stm = read_stm(tmp_path / "stm")
    placed, naive = hub5.place(references, segments, stm), to_ctm(references, segments)
    right = hub5.score_hub5(stm, tmp_path / "glm", placed, tmp_path / "right")
    wrong = hub5.score_hub5(stm, tmp_path / "glm", naive, tmp_path / "wrong")
    assert right[2]["wer"] == 0.0
    assert wrong[2]["wer"] > 1.0


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("[noise]", "noise"),
        ("[vocalized-noise]", "noise"),
        ("[laughter-yeah]", "noise"),
        ("<unk>", "noise"),
        ("Uh", "hesitations"),
        ("hm", "hesitations"),
        ("th-", "partial_words"),
    ],
)
def test_what_is_optional_in_the_reference_is_left_out(word, kind):
    kept, removed = hub5.filter_words([CtmWord("sw_1", "A", 0.0, 1.0, word)])
    assert not kept
    assert +removed == {kind: 1}


@pytest.mark.parametrize("word", ["uh-huh", "mm-hm", "huhs", "-cause", "%hesitation", "i'm"])
def test_other_words_stay(word):
    words = [CtmWord("sw_1", "A", 0.0, 1.0, word)]
    assert hub5.filter_words(words) == (words, Counter(dict.fromkeys(hub5.REMOVED, 0)))


@pytest.mark.parametrize(
    ("word", "letters"),
    [
        ("i._b._m.", ["i", "b", "m"]),
        ("a.", ["a"]),
        ("a.'s", ["a's"]),
        ("c.s", ["c's"]),
        ("t._v.s", ["t", "v's"]),
        ("b._b._c.'s", ["b", "b", "c's"]),
    ],
)
def test_acronyms_become_letters_that_share_their_time(word, letters):
    kept, _ = hub5.filter_words([CtmWord("sw_1", "A", 1.0, 0.6, word)])
    assert [w.word for w in kept] == letters
    assert [w.start for w in kept] == pytest.approx(
        [1.0 + 0.6 * i / len(letters) for i in range(len(letters))]
    )
    assert sum(w.duration for w in kept) == pytest.approx(0.6)


@pytest.mark.parametrize("word", ["(yes)", "a/b", "{a", "@"])
def test_markup_in_a_word_is_refused(word):
    with pytest.raises(ScoringError, match=r"sw_1 A at 2.000 s: .* as markup"):
        hub5.filter_words([CtmWord("sw_1", "A", 2.0, 1.0, word)])


def refused(folder, capsys, **changed):
    assert main(["hub5", *arguments(folder, **changed)]) == 1
    assert not (folder / "scored/hub5.json").exists()
    return capsys.readouterr().err


def test_a_hypothesis_without_segment_is_refused(made_up, capsys):
    (made_up / "text").write_text(TEXT + "en-9 oh\n")
    said = refused(made_up, capsys)
    assert f"{made_up}/text: 1 utterance(s) have no line in segments, such as en-9" in said


def test_a_segment_without_hypothesis_is_refused_where_it_is_scored(made_up, capsys):
    (made_up / "text").write_text(TEXT.replace("sw-4\n", ""))
    assert "no hypothesis for 1 of 7 segments, such as sw-4" in refused(made_up, capsys)


@needs_sctk
def test_overlaps_and_segments_without_reference_are_counted(made_up, capsys):
    (made_up / "segments").write_text(
        SEGMENTS.replace("5.90 7.10", "4.00 7.10") + "en-4 en_4156-A 7.00 8.00\n"
    )
    (made_up / "text").write_text(TEXT + "en-4 hello there\n")
    (made_up / "stm").write_text(STM.replace("3.00 4.00", "2.90 4.00"))
    assert command.main(arguments(made_up)) == 0
    said = capsys.readouterr().out
    assert "stm: overlapping segments, scored as they stand: 1\n" in said
    assert "segments: overlapping segments, whose words may mix: 1\n" in said
    assert "whose words are insertions: 1, such as en-4\n" in said
    assert rows(made_up)["CallHome"]["insertions"] == CALLHOME["insertions"] + 2


@needs_sctk
def test_a_segment_that_is_not_scored_needs_no_hypothesis(made_up):
    (made_up / "text").write_text(TEXT.replace("sw-3 anything at all\n", ""))
    assert command.main(arguments(made_up)) == 0
    assert rows(made_up)["All"]["wer"] == 17.39


def test_reversed_times_are_refused(made_up, capsys):
    (made_up / "segments").write_text(SEGMENTS.replace("5.90 7.10", "7.10 5.90"))
    assert "segments:7: sw-4 ends at 5.9 s, not after its start" in refused(made_up, capsys)
    (made_up / "segments").write_text(SEGMENTS)
    (made_up / "stm").write_text(STM.replace("6.00 7.00", "7.00 6.00"))
    assert "stm:11: the segment ends at 6 s, not after its start" in refused(made_up, capsys)


@needs_sctk
def test_missing_stm_and_glm_are_named_with_their_source(made_up, capsys):
    said = refused(made_up, capsys, stm=made_up / "none.stm")
    assert "none.stm: no such STM" in said and "LDC2002T43" in said
    said = refused(made_up, capsys, glm=made_up / "none.glm")
    assert "none.glm: no such GLM" in said and "LDC2002T43" in said


@needs_sctk
def test_an_stm_without_parts_is_refused(made_up, capsys):
    (made_up / "stm").write_text(STM.replace("sw_", "fsh_"))
    (made_up / "segments").write_text(SEGMENTS.replace("sw_", "fsh_"))
    said = refused(made_up, capsys)
    assert "call fsh_4390 belongs to none of the parts Switchboard (sw_...), CallHome" in said
    assert "--parts NAME=PREFIX" in said
    only = "".join(line for line in STM.splitlines(keepends=True) if not line.startswith("sw_"))
    (made_up / "stm").write_text(only)
    assert "no segment of part Switchboard (sw_...) is scored" in refused(made_up, capsys)


@needs_sctk
def test_a_channel_that_the_stm_lacks_is_refused(made_up, capsys):
    (made_up / "segments").write_text(SEGMENTS.replace("sw_4390-A", "sw_9999-A"))
    said = refused(made_up, capsys)
    assert "words in 1 channel(s) that the STM has no segment of, such as sw_9999 A" in said


@needs_sctk
def test_a_failure_of_hubscr_is_told_with_its_log(made_up, capsys):
    (made_up / "glm").write_text("[UH => broken\n")
    said = refused(made_up, capsys)
    assert "scored/switchboard/hubscr.log: hubscr.pl ended with status" in said
    assert not list((made_up / "scored").glob("*/hyp.ctm.filt.raw"))


def test_without_sctk_the_command_says_how_to_install_it(made_up, monkeypatch, capsys):
    monkeypatch.setattr(sctk.shutil, "which", lambda name: None)
    assert "Install sctk (Debian: apt-get install sctk)" in refused(made_up, capsys)


@pytest.mark.parametrize(
    "changed",
    [{"segments": None}, {"parts": "Switchboard"}, {"parts": "All=sw_"}, {"parts": "a/b=sw_"}],
)
def test_wrong_options_are_refused(made_up, changed, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(arguments(made_up, **changed))
    assert stopped.value.code == 2
    assert re.search("--hyp needs --segments|must be another NAME=PREFIX", capsys.readouterr().err)


@needs_sctk
@pytest.mark.parametrize(
    ("reference", "recognized"),
    [
        ("MY V C R'S AND C D'S", "my v c rs and c ds"),
        ("MY V C R'S AND C D'S", "my v c r's and c d's"),
        ("MY V C R'S AND C D'S", "my v._c._r.s and c._d.'s"),
        ("THE T V'S ON AS IT IS", "the t vs on as it is"),
        ("I GOT B'S AND ONE C", "i got bs and one c"),
        ("SAY HI TO A MS SMITH", "say hi to a ms smith"),
        ("THE B M W'S", "the b m ws"),
        ("I SAW THE C I A'S AND A T V IS ON", "i saw the c i a's and a t v is on"),
        ("CAF\xc9 DE", "caf\xe9 de"),
    ],
)
def test_plural_acronyms_and_letters_with_accents_are_no_errors(tmp_path, reference, recognized):
    (tmp_path / "stm").write_bytes(f"sw_1 A s 0 9 {reference}\n".encode("latin-1"))
    (tmp_path / "glm").write_text(GLM)
    (tmp_path / "segments").write_text("u1 sw_1-A 0 9\n")
    (tmp_path / "text").write_text(f"u1 {recognized}\n", encoding="utf-8")
    assert command.main(arguments(tmp_path, parts="Switchboard=sw_")) == 0
    (row,) = rows(tmp_path).values()
    assert row["wer"] == 0.0 and row["words"] == len(reference.split())


@needs_sctk
def test_nested_alternatives_are_counted_and_an_unclosed_one_is_refused(made_up, capsys):
    stm = STM.replace("OH YEAH I CAN'T COME", "OH { YEAH { I / ME } / NOBODY } CAN'T COME")
    assert stm != STM
    (made_up / "stm").write_text(stm)
    assert command.main(arguments(made_up)) == 0
    assert {key: rows(made_up)["CallHome"][key] for key in CALLHOME} == CALLHOME
    (made_up / "scored/hub5.json").unlink()
    (made_up / "stm").write_text(stm.replace("} CAN'T", "CAN'T"))
    assert f"{made_up}/stm:5: an opening brace without its closing" in refused(made_up, capsys)


@needs_sctk
def test_a_glm_of_windows_is_the_same(made_up):
    (made_up / "glm").write_bytes(b"\xef\xbb\xbf" + GLM.replace("\n", "\r\n").encode())
    assert command.main(arguments(made_up)) == 0
    assert [row["wer"] for row in rows(made_up).values()] == [25.0, 9.09, 17.39, 17.05]


@needs_sctk
@pytest.mark.parametrize("content", [b"", bytes(range(128)) * 9, b"\xff\xfe[\x00U\x00H\x00"])
def test_a_glm_of_something_else_is_refused_in_one_line(made_up, capsys, content):
    (made_up / "glm").write_bytes(content)
    said = refused(made_up, capsys)
    assert "glm" in said and said.count("\n") == 1
    (made_up / "glm").unlink()
    (made_up / "glm").mkdir()
    assert "glm: is a folder" in refused(made_up, capsys)
