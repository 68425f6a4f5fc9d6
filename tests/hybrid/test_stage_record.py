"""Records of stages: what stays, what is made anew and why, what is refused."""

import json
import os

import pytest

from espnet_quant4.hybrid.stage_record import (
    RECORD,
    Stage,
    StageError,
    file_input,
    folder_inputs,
    listed_inputs,
)


@pytest.fixture
def world(tmp_path):
    (tmp_path / "text").write_text("u1 a\n")
    return tmp_path


def stage(world, name="align", version=1, keeps=(), **options):
    inputs = {"text": file_input(world / "text")}
    return Stage(name, world / "out", ("model", "ids"), inputs, options, keeps, version)


def make(world, **options):
    """Return what the stage said, None where it was not made."""
    said = []
    made = stage(world, **options)
    if not made.begin(said.append):
        return None
    for name in ("model", "ids"):
        (world / "out" / name).write_text("made")
    made.finish()
    return " ".join(said)


def test_what_is_made_stays_until_an_input_an_option_or_the_version_changes(world):
    assert make(world, beam=10.0) == ""
    assert make(world, beam=10.0) is None
    os.utime(world / "text", ns=(0, 0))
    assert make(world, beam=10.0) is None
    (world / "text").write_text("u1 b\n")
    assert make(world, beam=10.0) == f"{world}/out: made anew, since {world}/text changed"
    assert make(world, beam=8.0) == f"{world}/out: made anew, since --beam is 8.0, not 10.0"
    assert "--lda is (1, 2), not None" in make(world, beam=8.0, lda=(1, 2)).replace(
        "[1, 2]", "(1, 2)"
    )
    assert make(world, beam=8.0, lda=(1, 2)) is None
    assert "earlier version" in make(world, beam=8.0, lda=(1, 2), version=2)
    (world / "out" / "ids").unlink()
    assert make(world, beam=8.0, lda=(1, 2), version=2).endswith("since ids is missing")


def test_a_new_place_of_the_same_files_changes_nothing(world):
    make(world)
    (world / "text").rename(world / "moved")
    inputs = {"text": file_input(world / "moved")}
    assert not Stage("align", world / "out", ("model", "ids"), inputs).begin(print)


def test_an_interrupted_stage_is_made_anew_and_its_folder_taken_by_none(world):
    make(world)
    (world / "text").write_text("u1 b\n")
    assert stage(world).begin(print)
    assert not (world / "out" / "model").exists()
    with pytest.raises(StageError, match="out: align was interrupted while it wrote this folder"):
        folder_inputs("model", world / "out", ())
    (world / "out" / "feats.scp").write_text("")
    with pytest.raises(StageError, match="interrupted"):
        listed_inputs("feats.scp", world / "out" / "feats.scp")
    assert "the run before was interrupted" in make(world)
    assert make(world) is None


def test_files_that_keep_their_time_are_not_removed(world):
    make(world)
    (world / "text").write_text("u1 b\n")
    assert stage(world, keeps=("ids",)).begin(print)
    assert (world / "out" / "ids").exists() and not (world / "out" / "model").exists()


def test_what_is_not_the_stages_own_is_refused_and_kept(world):
    (world / "out").mkdir()
    (world / "out" / "model").write_text("a user's")
    with pytest.raises(StageError, match=r"out: model is there, .*Remove or move .*out"):
        stage(world).begin(print)
    assert (world / "out" / "model").read_text() == "a user's"
    (world / "out" / "model").unlink()
    # A log is no output.
    (world / "out" / "align.log").write_text("")
    make(world)
    with pytest.raises(StageError, match="holds what align made; train would write over it"):
        stage(world, name="train").begin(print)
    assert (world / "out" / "model").read_text() == "made"


def test_a_file_has_its_record_beside_it(world):
    inputs = {"text": file_input(world / "text")}
    made = Stage("lm", world / "lm.arpa", (), inputs)
    assert made.begin(print)
    (world / "lm.arpa").write_text("made")
    made.finish()
    assert not made.begin(print)
    assert json.loads((world / f"lm.arpa.{RECORD}").read_text())["complete"]
    (world / "other.arpa").write_text("a user's")
    with pytest.raises(StageError, match=r"other\.arpa.made_from.json tells"):
        Stage("lm", world / "other.arpa", (), inputs).begin(print)


def test_recordings_count_by_size_and_time_and_lists_by_content(world):
    (world / "a.wav").write_bytes(b"1234")
    (world / "wav.scp").write_text(f"u1 {world}/a.wav\nu2 {world}/a.wav:17\nu3 sox x |\n")
    first = listed_inputs("wav.scp", world / "wav.scp")
    assert listed_inputs("wav.scp", world / "wav.scp") == first
    os.utime(world / "a.wav", ns=(0, 0))
    second = listed_inputs("wav.scp", world / "wav.scp")
    assert second["wav.scp"] == first["wav.scp"]
    assert second["wav.scp, files"] != first["wav.scp, files"]
    (world / "a.wav").write_bytes(b"12345")
    os.utime(world / "a.wav", ns=(0, 0))
    assert listed_inputs("wav.scp", world / "wav.scp") != second


def test_a_missing_input_is_an_error_before_anything_is_removed(world):
    make(world)
    (world / "text").unlink()
    with pytest.raises(FileNotFoundError):
        make(world)
    assert (world / "out" / "model").exists()


@pytest.mark.parametrize("content", ["[]", "{}", "not JSON"])
def test_a_damaged_record_is_refused(world, content):
    make(world)
    (world / "out" / RECORD).write_text(content)
    with pytest.raises(ValueError, match=RECORD):
        make(world)
