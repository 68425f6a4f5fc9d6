"""Switchboard-1 on look-alike disks: lhotse's faults corrected, bad input named and counted."""

import pytest
from corpora.switchboard_disks import Switchboard, tones, write, write_sphere

from espnet_quant4.corpora.switchboard import calls, segments, swbd1
from espnet_quant4.corpora.switchboard.dictionary import lexicon
from espnet_quant4.corpora.switchboard.findings import CorpusError, Findings
from espnet_quant4.corpora.switchboard.sphere import lhotse_reads_sphere
from espnet_quant4.corpora.switchboard.swbd1 import prepare_swbd1, read_speakers
from espnet_quant4.corpora.switchboard.utterances import NO_WORDS, UNKNOWN_MARK


def prepare(disks, **options):
    findings = Findings("swbd")
    utterances, _ = prepare_swbd1(disks.audio, disks.transcripts, findings, **options)
    return utterances, findings


def names(utterances):
    return [each.name for each in utterances]


@pytest.fixture
def disks(tmp_path):
    return Switchboard(tmp_path)


def test_each_side_has_its_own_speaker_and_channel(disks):
    disks.add(2001)
    from lhotse.recipes.switchboard import prepare_switchboard

    with lhotse_reads_sphere(False):
        raw = prepare_switchboard(disks.audio, disks.transcripts)["supervisions"]
    assert {each.speaker for each in raw} == {"sw02001A"}  # the fault
    utterances, _ = prepare(disks)
    assert [(each.speaker, each.channel, each.text) for each in utterances] == [
        ("sw02001-A", 0, "yeah"),
        ("sw02001-B", 1, "okay"),
    ]
    assert names(utterances) == ["sw02001-A_000000-000100", "sw02001-B_000000-000100"]


def test_texts_are_normalized_and_words_after_silence_stay(disks):
    disks.add(2001, ["[laughter-yeah] i[t]- <b_aside> IBM", "[silence]", "[silence] so"])
    utterances, findings = prepare(disks)
    assert [each.text for each in utterances] == ["yeah i- i b m", "so", "okay"]
    assert findings.entries[NO_WORDS] == ["sw02001-A_000100-000200"]


def test_marks_that_no_rule_knows_are_named(disks):
    disks.add(2001, ["well [door slam] yes"])
    utterances, findings = prepare(disks)
    assert utterances[0].text == "well [door slam] yes"
    assert findings.entries[UNKNOWN_MARK] == ["sw02001-A_000000-000100 ([door)"]


def test_persons_of_the_table_are_speakers(disks, tmp_path):
    disks.add(2001).add(2005)
    write(tmp_path / "conv_tab.csv", '2001, 910305, 1011, 1012,"x"', "")
    persons = read_speakers(tmp_path / "conv_tab.csv")
    utterances, findings = prepare(disks, persons=persons)
    assert [each.speaker for each in utterances] == ["sw1011", "sw1012", "sw02005-A", "sw02005-B"]
    assert utterances[0].name == "sw1011-sw02001-A_000000-000100"
    assert findings.entries[swbd1.UNKNOWN_SPEAKER] == ["sw02005-A", "sw02005-B"]
    write(tmp_path / "conv_tab.csv", "2001,910305")
    with pytest.raises(CorpusError, match=r"conv_tab\.csv:1: .*CALLER A"):
        read_speakers(tmp_path / "conv_tab.csv")


def test_times_that_cannot_be_used(disks):
    disks.add(2001, seconds=6)
    rows = [(0, 1), (1, 1), (3, 2.5), (0.95, 2), (1.5, 2.5), (5, 7), (6, 7)]
    lines = [f"sw2001A-{i} {start} {end} word" for i, (start, end) in enumerate(rows)]
    write(
        disks.text(2001, "A"), *lines, "sw2001A-x one 2 word", "sw2001A-y nan 2 word", "", "z 1 2"
    )
    utterances, findings = prepare(disks)
    assert names(utterances)[:-1] == [
        "sw02001-A_000000-000100",
        "sw02001-A_000095-000200",  # 50 ms of overlap are allowed
        "sw02001-A_000500-000600",
    ]
    counts = {rule: len(found) for rule, found in findings.entries.items()}
    assert counts == {
        segments.REVERSED: 2,
        segments.OVERLAPPING: 1,
        segments.CUT: 1,
        segments.BEYOND: 1,
        segments.MALFORMED: 3,
        swbd1.NOT_IN_DICTIONARY: 2,
    }
    assert findings.entries[segments.REVERSED] == ["sw2001A-1 (1 to 1 s)", "sw2001A-2 (3 to 2.5 s)"]
    line = next(line for line in findings.lines() if "overlap" in line or "before the end" in line)
    assert line.startswith("swbd: 1 segments left out: they start over 0.1 s before the end")
    assert "sw2001A-4 (1.5 to 2.5 s, sw2001A-3 ends 2)" in line


def test_calls_that_do_not_match_are_left_out_and_named(disks):
    for call in range(2001, 2061):
        disks.add(call)
    disks.sph(2001, 1 + 2001 % 4).unlink()
    write_sphere(disks.sph(2002, 1 + 2002 % 4), tones(1, channels=1))
    write_sphere(disks.sph(2003, 1 + 2003 % 4), tones(1), drop_bytes=500)
    disks.text(2004, "B").unlink()
    disks.text(2005, "A").unlink()
    disks.text(2005, "B").unlink()
    write_sphere(disks.sph(2006, 9), tones(1))
    utterances, findings = prepare(disks, allow_incomplete=True)
    assert findings.entries[calls.NO_AUDIO] == ["sw2001"]
    assert findings.entries[calls.ONE_CHANNEL] == ["sw02002.sph (1)"]
    assert findings.entries[calls.TRUNCATED] == ["sw02003.sph (500 bytes missing)"]
    assert findings.entries[swbd1.ONE_SIDE] == ["sw2004 (no B)"]
    assert findings.entries[calls.NO_TRANSCRIPT] == ["sw02005.sph"]
    assert findings.count(calls.TWICE) == 1
    sides = {each.side for each in utterances}
    assert "sw02004-A" in sides
    assert not sides & {"sw02001-A", "sw02002-A", "sw02003-A", "sw02004-B", "sw02005-A"}
    assert len(sides) == 2 * 56 - 1


def test_too_many_missing_calls_are_refused_unless_allowed(disks):
    for call in range(2001, 2011):
        disks.add(call)
    disks.sph(2001, 1 + 2001 % 4).unlink()
    with pytest.raises(
        CorpusError, match=r"1 of 10 calls .* 2001.*--allow_incomplete true.*without audio"
    ):
        prepare(disks)
    utterances, _ = prepare(disks, allow_incomplete=True)
    assert len(utterances) == 18


@pytest.mark.parametrize("what", ["audio", "transcripts"])
def test_missing_folder_is_named(disks, tmp_path, what):
    disks.add(2001)
    setattr(disks, what, tmp_path / "nowhere")
    with pytest.raises(CorpusError, match=rf"{what}: .*nowhere is not there.*(LDC97S62|ISIP)"):
        prepare(disks)


def test_wrong_layout_says_what_is_there_and_what_is_expected(disks, tmp_path):
    disks.add(2001)
    empty = tmp_path / "LDC_other"
    write(empty / "readme.txt", "hello")
    disks.audio = empty
    with pytest.raises(
        CorpusError, match=r"swb1_d\*/data/sw0NNNN\.sph.*LDC_other holds readme\.txt"
    ):
        prepare(disks)


def test_missing_dictionary_is_named(disks):
    disks.add(2001)
    (disks.transcripts / "sw-ms98-dict.text").unlink()
    with pytest.raises(CorpusError, match=r"sw-ms98-dict\.text is not there"):
        prepare(disks)


def test_other_sampling_rate_is_refused(disks):
    disks.add(2001)
    write_sphere(disks.sph(2001, 1 + 2001 % 4), tones(1), rate=16000)
    with pytest.raises(CorpusError, match=r"sw02001\.sph: 16000 Hz"):
        prepare(disks)


def test_disks_may_be_links_and_names_in_capitals(disks, tmp_path):
    disks.add(2001)
    original = disks.sph(2001, 1 + 2001 % 4)
    original.rename(original.with_name("SW02001.SPH"))
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "d1").symlink_to(original.parent)
    disks.audio = linked
    utterances, _ = prepare(disks)
    assert len(utterances) == 2


def test_texts_and_lexicon_have_the_same_words_or_the_findings_tell(disks):
    disks.add(2001, ["them_1's VCRs [laughter-them_1]", "yeah zyzzyva"], ["yeah zyzzyva okay"])
    findings = Findings("swbd")
    utterances, entries = prepare_swbd1(disks.audio, disks.transcripts, findings)
    assert [each.text for each in utterances] == [
        "them's v c r's them",
        "yeah zyzzyva",
        "yeah zyzzyva okay",
    ]
    known = {line.split()[0] for line in lexicon(entries)}
    unknown = {word for each in utterances for word in each.text.split()} - known
    assert unknown == {"zyzzyva", "okay"}
    assert findings.entries == {
        swbd1.NOT_IN_DICTIONARY: ["zyzzyva (2 times)", "okay (1 times)"],
    }


def test_a_mark_that_stays_within_a_word_is_named(disks):
    disks.add(2001, ["yeah_yeah"], ["yeah"])
    assert prepare(disks)[1].entries[UNKNOWN_MARK] == ["sw02001-A_000000-000100 (yeah_yeah)"]


def test_files_in_latin_1_and_with_line_ends_of_windows_are_read(disks, tmp_path, caplog):
    disks.add(2001, ["caf\xe9"], ["yeah"])
    for path in (disks.text(2001, "A"), disks.transcripts / "sw-ms98-dict.text"):
        content = path.read_text(encoding="utf-8") + "caf\xe9 k ae f ey\n" * ("dict" in path.name)
        path.write_bytes(content.replace("\n", "\r\n").encode("latin-1"))
    utterances, findings = prepare(disks)
    assert [each.text for each in utterances] == ["caf\xe9", "yeah"]
    assert not findings.entries
    assert caplog.text.count("the file is read as latin-1") == 2


def test_callers_that_are_told_twice_are_named_with_both_lines(tmp_path):
    path = tmp_path / "conv_tab.csv"
    write(path, "2001, 910305, 1011, 1012", "2005,1,2,3", "2001, 910305, 1011, 1013")
    with pytest.raises(
        CorpusError, match=r"conv_tab\.csv:3: call 2001 has other callers in line 1"
    ):
        read_speakers(path)
    write(path, "2001, 910305, 1011, 1012", "2001, 910305, 1011, 1012")
    assert read_speakers(path) == {"sw02001-A": "sw1011", "sw02001-B": "sw1012"}
