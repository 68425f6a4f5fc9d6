"""Files that are whole are read, all others refused."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from espnet_quant4.int4 import file_format
from espnet_quant4.int4.file_format import Int4FileError, read, write

TENSORS = {"a": torch.arange(20, dtype=torch.uint8).view(4, 5), "b": torch.randn(3)}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "model.int4"
    assert write(path, TENSORS, {"config": "{}"}) == path.stat().st_size
    return path


def test_round_trip(path):
    tensors, metadata = read(path)
    assert set(tensors) == set(TENSORS)
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert metadata["config"] == "{}" and metadata["format_version"] == "1"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_what_was_read_is_nobody_elses(tmp_path):
    path = tmp_path / "large.int4"
    write(path, {"a": torch.zeros(1 << 22, dtype=torch.uint8)}, {})
    tensors, _ = read(path)
    with open("/proc/self/maps", encoding="utf-8") as maps:
        assert str(path) not in maps.read()
    with path.open("r+b") as opened:
        opened.seek(1 << 21)
        opened.write(b"\xff" * 1024)
    assert not tensors["a"].any()
    with path.open("r+b") as opened:
        opened.truncate(100)
    assert not tensors["a"].any()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_changed_byte_is_found(path, data):
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    changed = path.with_name("changed")
    changed.write_bytes(content)
    with pytest.raises(Int4FileError, match="changed"):
        read(changed)
    changed.unlink()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_truncation_is_found(path, data):
    content = path.read_bytes()
    cut = path.with_name("cut")
    cut.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(Int4FileError):
        read(cut)
    cut.write_bytes(content + b"\0")
    with pytest.raises(Int4FileError):
        read(cut)
    cut.unlink()


def test_newer_version_says_to_upgrade(tmp_path, monkeypatch):
    monkeypatch.setattr(file_format, "FORMAT_VERSION", 2)
    write(tmp_path / "new.int4", TENSORS, {})
    monkeypatch.undo()
    with pytest.raises(
        Int4FileError, match="format 2; this espnet_quant4 reads up to 1. Install a newer"
    ):
        read(tmp_path / "new.int4")
    for version in ("x", "²", "-1", "0", "", "1.5"):
        monkeypatch.setattr(file_format, "FORMAT_VERSION", version)
        write(tmp_path / "odd.int4", TENSORS, {})
        monkeypatch.undo()
        message = re.escape(
            f"format_version is {version!r}; this espnet_quant4 reads numbers from 1"
        )
        with pytest.raises(Int4FileError, match=message):
            read(tmp_path / "odd.int4")
    monkeypatch.setattr(file_format, "FORMAT", "other")
    write(tmp_path / "other.int4", TENSORS, {})
    monkeypatch.undo()
    with pytest.raises(Int4FileError, match="format is 'other', and 'espnet_quant4' is what"):
        read(tmp_path / "other.int4")


def test_foreign_and_missing_files(tmp_path):
    save_file(TENSORS, str(tmp_path / "other.safetensors"))
    with pytest.raises(Int4FileError, match="did not write"):
        read(tmp_path / "other.safetensors")
    with pytest.raises(Int4FileError, match="espnet-quant4 convert"):
        read(tmp_path / "none.int4")
    with pytest.raises(Int4FileError, match="a folder"):
        read(tmp_path)
    (tmp_path / "text").write_text("no model, but a longer text than eight bytes")
    with pytest.raises(Int4FileError):
        read(tmp_path / "text")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.int4"
    write(path, TENSORS, {})
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(file_format.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write(path, {"a": torch.zeros(1)}, {})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
