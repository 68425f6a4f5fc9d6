"""Reading and writing of text files."""

import logging

import pytest
import yaml

from espnet_quant4.text_files import (
    TextFileError,
    read_json,
    read_lines,
    read_symbols,
    read_table,
    read_text,
    read_yaml,
    write_lines,
)


def test_mark_and_line_ends_are_no_content(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"\xef\xbb\xbfa b\r\nc\rd\n")
    assert read_text(path) == "a b\nc\nd\n"


def test_only_line_feeds_end_a_line(tmp_path):
    path = tmp_path / "text"
    path.write_text("a\u2028b\x0cc\x85d\n\ne", encoding="utf-8")
    assert read_lines(path) == ["a\u2028b\x0cc\x85d", "", "e"]


def test_another_encoding_is_named_with_its_line(tmp_path):
    path = tmp_path / "text"
    path.write_bytes("a\nb caf\xe9\n".encode("latin-1"))
    with pytest.raises(TextFileError, match=r"text:2: byte 0xe9 is not UTF-8.*iconv"):
        read_text(path)


def test_a_fallback_is_taken_with_a_note(tmp_path, caplog):
    path = tmp_path / "text"
    path.write_bytes("caf\xe9".encode("latin-1"))
    with caplog.at_level(logging.WARNING):
        assert read_text(path, fallback="latin-1") == "caf\xe9"
    assert "read as latin-1" in caplog.text


@pytest.mark.parametrize("content", [b"a\0b", "ab".encode("utf-16")])
def test_binary_files_are_refused(tmp_path, content):
    path = tmp_path / "text"
    path.write_bytes(content)
    with pytest.raises(TextFileError, match="text:1"):
        read_text(path)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(TextFileError, match="is a folder"):
        read_lines(tmp_path)


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (read_json, '{"a": 1,\n"a": 2}', "table: not valid JSON: 'a' stands twice in an object"),
        (read_yaml, "a: 1\nb: 2\na: 3\n", "table:3: not valid YAML: 'a' stands here and in line 1"),
        (read_yaml, "b: {a: 1, a: 2}\n", "table:1: not valid YAML: 'a' stands here and in line 1"),
        (read_json, "[" * 100_000, "table: not valid JSON: "),
        (read_yaml, "[" * 20_000, "table: not valid YAML: "),
        (read_yaml, "a: 2024-13-45", "table: not valid YAML: month must be in"),
        (read_yaml, "a: \x01", "table: not valid YAML: unacceptable character"),
    ],
    ids=["json", "yaml", "flow", "deep-json", "deep-yaml", "date", "control"],
)
def test_what_a_parser_takes_by_halves_or_dies_of_is_refused(tmp_path, read, content, message):
    path = tmp_path / "table"
    path.write_text(content)
    with pytest.raises(TextFileError, match=message) as error:
        read(path)
    assert "\n" not in str(error.value)


def test_merged_keys_of_yaml_may_be_set_anew(tmp_path):
    path = tmp_path / "table"
    content = "x: &x {a: 1, b: 2}\ny: &y {<<: *x, a: 3}\nz: {<<: *y, b: 4}\n"
    path.write_text(content)
    assert read_yaml(path) == yaml.safe_load(content)


@pytest.mark.parametrize(("read", "content"), [(read_json, '{\n"a": }'), (read_yaml, "a: 1\nb: [")])
def test_broken_data_files_are_named_with_a_line(tmp_path, read, content):
    path = tmp_path / "file"
    path.write_text(content)
    with pytest.raises(TextFileError, match=r"file:2: not valid"):
        read(path)


def test_a_key_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "wav.scp"
    path.write_text("u1 a.wav\nu2 b.wav\nu1 c.wav\n")
    with pytest.raises(TextFileError, match=r"wav.scp:3: 'u1' stands here and in line 1"):
        read_table(path)


def test_tables_take_environment_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("CORPUS", "/corpus")
    path = tmp_path / "wav.scp"
    path.write_text("u1 $CORPUS/a b.wav\n\nu2\n")
    assert read_table(path) == {"u1": "/corpus/a b.wav"}


def test_a_broken_symbol_table_is_named_with_its_line(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("<eps> 0\na\n")
    with pytest.raises(TextFileError, match=r"words.txt:2: 'a'; valid is a symbol and its number"):
        read_symbols(path)


def test_an_interrupted_writer_leaves_what_was_there(tmp_path):
    path = tmp_path / "lines"
    write_lines(path, ["a"])

    def broken():
        yield "b"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_lines(path, broken())
    assert path.read_text() == "a\n"
