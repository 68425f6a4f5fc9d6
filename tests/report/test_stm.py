"""STM references: what is read, what is repaired, what is refused."""

import pytest

from espnet_quant4.report.scoring import ScoringError
from espnet_quant4.report.stm import read_stm


def write(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_a_clean_file_stays_as_it_is(tmp_path):
    lines = (
        ';; CATEGORY "0" "" ""',
        ';; LABEL "O" "Overall" "Overall"',
        ';; LABEL "sw" "Switchboard" ""',
        "sw_1 A sw_1_A 0.000 1.250 <O,sw> (%HESITATION) { YES / YEAH } I-",
        "sw_1 B sw_1_B 1.000 2.000 <O,sw> IGNORE_TIME_SEGMENT_IN_SCORING",
        "sw_1 B sw_1_B 2.000 3.000 <O,sw> ",
    )
    path = write(tmp_path / "stm", *lines)
    stm = read_stm(path)
    assert stm.format() == path.read_text()
    assert not stm.repairs
    assert [segment.scored for segment in stm.segments] == [True, False, True]
    assert (stm.segments[0].call, stm.segments[0].channel, stm.segments[0].end) == (
        "sw_1",
        "A",
        1.25,
    )


def test_asides_and_doubled_parentheses_are_repaired(tmp_path):
    path = write(
        tmp_path / "stm",
        ';; LABEL "O" "Overall" "Overall"',
        "sw_1 A s 0 1 <O> ((%HESITATION) YES <B_ASIDE> NO <E_ASIDE> ((OH))",
        "sw_1 A s 1 2 <O> (OH)",
        "sw_1 A s 2 3 <b_aside> OH",
    )
    stm = read_stm(path)
    texts = [segment.text for segment in stm.segments]
    assert texts == ["(%HESITATION) YES NO (OH)", "(OH)", "OH"]
    assert stm.repairs == {
        "segments without marks of asides": 2,
        "segments with single parentheses": 1,
    }


def test_labels_are_defined_where_they_are_not(tmp_path):
    path = write(
        tmp_path / "stm",
        ';; CATEGORY "0" "" ""',
        ';; LABEL "o" "Overall" "Overall"',
        "sw_1 A s 0 1 <O,sw> YES",
    )
    assert read_stm(path).comments[2:] == (';; LABEL "sw" "sw" ""',)
    bare = read_stm(write(tmp_path / "bare", "sw_1 A s 0 1 YES"))
    assert bare.comments == (';; CATEGORY "0" "" ""', ';; LABEL "O" "O" ""')
    assert bare.repairs == {"labels defined": 1}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sw_1 A s 2 1 <O> YES", "stm:1: the segment ends at 1 s, not after its start at 2 s"),
        ("sw_1 A s 1 1 <O> YES", "not after its start"),
        ("sw_1 A s zero 1 <O> YES", "times 'zero 1' are not seconds"),
        ("sw_1 A s 0", "is not 'call channel speaker start end"),
        (
            "sw_1 A s 0 1 <O> (YES NO",
            "parentheses do not match, or stand around braces: '\\(YES NO'",
        ),
        ("sw_1 A s 0 1 <O> YES) NO", "do not match"),
        ("sw_1 A s 0 1 <O> (A (B) C)", "do not match"),
        ("sw_1 A s 0 1 <O> { YES / NO", "stm:1: an opening brace without its closing one"),
        ("sw_1 A s 0 1 <O> { YES / { NO / OH }", "stm:1: an opening brace without its closing one"),
        ("sw_1 A s 0 1 <O> } YES / NO {", "stm:1: a closing brace without its opening one"),
        ("sw_1 A s 0 1 <O> { } YES", "stm:1: braces without an alternative between them"),
        ("sw_1 A s 0 1 <O> ({ YES / NO })", "stm:1: parentheses do not match, or stand around"),
        ("sw_1 A s 0 1 <O> OH{ YES / NO }", "stm:1: a brace within a word, 'OH{'"),
        ("sw_1 A s 0 inf <O> YES", "times '0 inf' are not seconds"),
        (";; only a comment", "no segment in it"),
    ],
)
def test_faults_are_named(tmp_path, line, message):
    with pytest.raises(ScoringError, match=message):
        read_stm(write(tmp_path / "stm", line))


def test_a_missing_file_is_named_with_its_source(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"eval2000.stm: no such STM; .*LDC2002T43"):
        read_stm(tmp_path / "eval2000.stm")


def test_a_segment_that_stands_twice_is_named_with_both_lines(tmp_path):
    path = write(tmp_path / "stm", "sw_1 A s 0 1 YES", "sw_1 B s 0 1 YES", "sw_1 A s 0 1.0 NO")
    with pytest.raises(ScoringError, match=r"stm:3: the segment of sw_1 A from 0 s .* line 1;"):
        read_stm(path)


def test_what_is_no_utf_8_is_read_as_latin_1_with_a_note(tmp_path, caplog):
    path = tmp_path / "stm"
    path.write_bytes("sw_1 A s 0 1 CAFÉ\r\n".encode("latin-1"))
    assert read_stm(path).segments[0].text == "CAFÉ"
    assert f"{path}:1: byte 0xc9 is not UTF-8; the file is read as latin-1" in caplog.text
