"""Hypotheses as CTM: times from segments, files with faults."""

import pytest

from espnet_quant4.report.ctm import (
    CtmWord,
    Segment,
    format_ctm,
    read_ctm,
    read_hypotheses,
    read_segments,
    spread,
    to_ctm,
)
from espnet_quant4.report.scoring import ScoringError
from espnet_quant4.text_files import TextFileError


def write(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_words_share_their_segment_evenly():
    words = spread(["a", "b", "c"], Segment("sw_1", "A", 1.0, 2.0))
    assert format_ctm(words) == (
        "sw_1 A 1.000 0.333 a\nsw_1 A 1.333 0.334 b\nsw_1 A 1.667 0.333 c\n"
    )
    assert spread([], Segment("sw_1", "A", 1.0, 2.0)) == []


def test_an_espnet_text_becomes_a_ctm_sorted_by_channel_and_time(tmp_path):
    segments = write(
        tmp_path / "segments",
        "sw_1-B_000100-000200 sw_1-B 1.00 2.00",
        "sw_1-A_000300-000400 sw_1-A 3.00 4.00",
        "sw_1-A_000000-000100 sw_1_A 0.00 1.00",
    )
    text = write(
        tmp_path / "text",
        "sw_1-B_000100-000200 yes",
        "sw_1-A_000300-000400 no  no",
        "sw_1-A_000000-000100",
    )
    words = to_ctm(read_hypotheses(text), read_segments(segments))
    assert format_ctm(words) == (
        "sw_1 A 3.000 0.500 no\nsw_1 A 3.500 0.500 no\nsw_1 B 1.000 1.000 yes\n"
    )


def test_channels_come_from_a_file_where_there_is_one(tmp_path):
    segments = write(tmp_path / "segments", "u1 en_4156_0 0 1")
    with pytest.raises(ScoringError, match=r"segments:1: recording en_4156_0 ends in neither -A"):
        read_segments(segments)
    named = write(tmp_path / "other", "en_4156_0 en_4156 B")
    assert read_segments(segments, named) == {"u1": Segment("en_4156", "B", 0.0, 1.0)}
    write(tmp_path / "reco2file_and_channel", "en_4156_0 en_4156 A")
    assert read_segments(segments) == {"u1": Segment("en_4156", "A", 0.0, 1.0)}
    write(tmp_path / "reco2file_and_channel", "en_4156_1 en_4156 B")
    with pytest.raises(ScoringError, match="no line for recording en_4156_0"):
        read_segments(segments)
    write(tmp_path / "reco2file_and_channel", "en_4156_0 en_4156 A", "en_4156_0 en_4156 B")
    with pytest.raises(
        ScoringError, match=r"reco2file_and_channel:2: recording en_4156_0 .* line 1;"
    ):
        read_segments(segments)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("u2 sw_1-A 2.0 1.0", "segments:2: u2 ends at 1 s, not after its start at 2 s"),
        ("u2 sw_1-A 2.0 2.0", "not after its start"),
        ("u2 sw_1-A 2.0", "'u2 sw_1-A 2.0' is not 'utterance recording start end'"),
        ("u2 sw_1-A one 2.0", "times 'one 2.0' are not seconds"),
        ("u2 sw_1-A 1.0 nan", "times '1.0 nan' are not seconds"),
        ("u2 sw_1-A 1.0 1e999", "times '1.0 1e999' are not seconds"),
        ("u1 sw_1-A 3.0 4.0", "segments:2: utterance u1 stands here and in line 1;"),
    ],
)
def test_faults_of_segments_are_named(tmp_path, line, message):
    with pytest.raises(ScoringError, match=message):
        read_segments(write(tmp_path / "segments", "u1 sw_1-A 0.0 1.0", line))


def test_a_hypothesis_without_segment_is_refused():
    with pytest.raises(ScoringError, match=r"exp/text: 1 utterance.* such as u2"):
        to_ctm({"u1": [], "u2": ["a"]}, {"u1": Segment("sw_1", "A", 0, 1)}, "exp/text")


def test_a_word_that_stands_twice_is_refused(tmp_path):
    path = write(tmp_path / "ctm", "sw_1 A 1.0 0.2 yes", ";; a comment", "sw_1 A 1.0 0.2 yes 0.9")
    with pytest.raises(ScoringError, match=r"ctm:3: word 'yes' at 1 s stands here and in line 1;"):
        read_ctm(path)
    # What is shorter than the decimals may be there twice.
    assert len(read_ctm(write(path, "sw_1 A 1.0 0.0 yes", "sw_1 A 1.0 0.0 yes"))) == 2


def test_an_utterance_decoded_twice_is_refused(tmp_path):
    with pytest.raises(TextFileError, match="text:3: 'u1' stands here and in line 1;"):
        read_hypotheses(write(tmp_path / "text", "u1 a", "u2", "u1 b"))


def test_a_ctm_is_read_without_comments_and_confidences(tmp_path):
    path = write(tmp_path / "ctm", ";; made up", "sw_1 A 1.0 0.25 yes 0.9", "sw_1 B 0 .5 no")
    assert read_ctm(path) == [
        CtmWord("sw_1", "A", 1.0, 0.25, "yes"),
        CtmWord("sw_1", "B", 0.0, 0.5, "no"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sw_1 A 1.0 -0.5 yes", "ctm:1: start 1 s, duration -0.5 s"),
        ("sw_1 A -1.0 0.5 yes", "ctm:1: start -1 s"),
        ("sw_1 A * * <ALT>", r"times '\* \*' are not seconds"),
        ("sw_1 A 1.0 0.5", "is not 'call channel start duration word"),
    ],
)
def test_faults_of_a_ctm_are_named(tmp_path, line, message):
    with pytest.raises(ScoringError, match=message):
        read_ctm(write(tmp_path / "ctm", line))


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "ctm: no word in it"), ("sw_1 A 0 1 two words", "ctm:1: confidence 'words' is neither")],
)
def test_what_is_no_ctm_is_refused(tmp_path, content, message):
    with pytest.raises(ScoringError, match=message):
        read_ctm(write(tmp_path / "ctm", content))
