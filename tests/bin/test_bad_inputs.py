"""Commands that read users' files: each file missing, a folder, empty, in another encoding, broken."""

import json
import shutil
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
import yaml

from espnet_quant4 import trained_model
from espnet_quant4.bin.main import main
from espnet_quant4.report import ablation, hub5, results

TEXT = "amy-1 press one\namy-2 good bye\n"
ROW = {
    "system": "fp32", "part": "test", "bits": "W32A32", "inference": "float", "seed": 1,
    "wer": 7.5, "cer": 3.0, "words": 700, "size_bytes": 10,
}  # fmt: skip
VARIANTS = {"base": "tailored", "variants": [{"name": "w3", "group": "bits", "title": "W3"}]}
STM = "sw_1 A amy 0.00 1.00 PRESS ONE\nen_1 A amy 0.00 1.00 GOOD BYE\n"
DESCRIPTION = {"bits": "W4A4", "weight_bits": 4.5, "size_bytes": 20, "seed": 1}


def write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def score(at: Path):
    files = [write(at / "ref", TEXT), write(at / "hyp", TEXT)]
    return ["score", *files, "--scorer", "builtin"], files


def compare(at: Path):
    files = [write(at / name, TEXT) for name in ("ref", "one", "two")]
    options = zip(("--reference", "--first", "--second"), files, strict=True)
    return ["compare", *(x for pair in options for x in pair), "--samples", "9"], files


def study(at: Path):
    files = [write(at / "results.json", json.dumps([ROW]))]
    return ["study", "--results", *files, "--output", at / "out.json"], files


def variants(at: Path):
    files = [write(at / "variants.yaml", yaml.safe_dump(VARIANTS))]
    return ["variants", "--file", *files, "--family", "asr", "--output", at / "schemes"], files


def make_ablation(at: Path):
    files = [write(at / "variants.yaml", yaml.safe_dump(VARIANTS)), write(at / "ref", TEXT)]
    files += [
        write(at / "exp_fp32/decode/dev/text", TEXT),
        write(at / "exp_w3/decode_int4/dev/text", TEXT),
    ]
    return [
        *("ablation", "--file", files[0], "--family", "asr", "--seeds", "1"),
        *("--experiments", f"{at}/exp_{{variant}}", "--part", "decode/dev"),
        *("--reference", files[1], "--output", at / "out.json"),
    ], files


def make_results(at: Path):
    files = [write(at / "dump/test/text", TEXT), write(at / "exp/asr_a/decode/test/text", TEXT)]
    return [
        *("results", "--systems", at / "exp/asr_a", "--dumpdir", at / "dump", "--fs", "8000"),
        *("--inference", "decode", "--output", at / "out.json"),
    ], files


def hub5_text(at: Path):
    files = [
        write(at / "text", "u1 press one\nu2 good bye\n"),
        write(at / "segments", "u1 sw_1-A 0 1\nu2 en_1-A 0 1\n"),
        write(at / "channels", "sw_1-A sw_1 A\nen_1-A en_1 A\n"),
    ]
    stm, glm = write(at / "stm", STM), write(at / "glm", "")
    return [
        *("hub5", "--hyp", files[0], "--segments", files[1], "--channels", files[2]),
        *("--stm", stm, "--glm", glm, "--output", at / "out"),
    ], files


def hub5_ctm(at: Path):
    words = "sw_1 A 0.1 0.2 press\nsw_1 A 0.4 0.2 one\nen_1 A 0.1 0.2 good\nen_1 A 0.4 0.2 bye\n"
    files = [write(at / "ctm", words)]
    options = ["--stm", write(at / "stm", STM), "--glm", write(at / "glm", "")]
    return ["hub5", "--ctm", *files, *options, "--output", at / "out"], files


COMMANDS = {
    make.__name__: make
    for make in (
        score, compare, study, variants, make_ablation, make_results, hub5_text, hub5_ctm,
    )
}  # fmt: skip
INPUTS = {
    "score": 2, "compare": 3, "study": 1, "variants": 1, "make_ablation": 4, "make_results": 2,
    "hub5_text": 3, "hub5_ctm": 1,
}  # fmt: skip


def remove(path: Path):
    path.unlink()


def make_folder(path: Path):
    path.unlink()
    path.mkdir()


def make_empty(path: Path):
    path.write_bytes(b"")


def make_latin_1(path: Path):
    path.write_bytes(path.read_bytes() + "caf\xe9 1 2 3\n".encode("latin-1"))


def make_binary(path: Path):
    path.write_bytes(bytes(range(128)) * 3)


def make_utf_16(path: Path):
    path.write_text(path.read_text(), encoding="utf-16")


def cut_off(path: Path):
    """Break what has a form of its own: JSON, YAML, a table of fields, a line without its partner."""
    content = path.read_text().rstrip()
    path.write_text(content[: len(content) // 2].rstrip() + " [")


def repeat(path: Path):
    """Say all of it twice, as by `cat a a`."""
    path.write_text(path.read_text() * 2)


FAULTS = (
    remove, make_folder, make_empty, make_latin_1, make_binary, make_utf_16, cut_off, repeat,
)  # fmt: skip


def counts_of_part(folder, *_):
    parts = 2 if folder.name == "all" else 1
    return hub5.Counts(sentences=parts, words=2 * parts, correct=2 * parts)


@pytest.fixture(autouse=True)
def without_models(monkeypatch):
    """Neither checkpoints nor NIST's programs: what is read before them is what counts here."""
    monkeypatch.setattr(results, "describe_model", lambda *_: dict(DESCRIPTION))
    monkeypatch.setattr(ablation, "describe_model", lambda *_: dict(DESCRIPTION))
    monkeypatch.setattr(hub5, "find_hubscr", lambda: "hubscr.pl")
    monkeypatch.setattr(hub5, "run_hubscr", counts_of_part)


def run(arguments, capsys):
    """Return exit status, standard output and what stands on standard error."""
    status = main(list(map(str, arguments)))
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def refused(arguments, capsys, *named):
    status, _, said = run(arguments, capsys)
    assert status == 1
    assert said.count("\n") == 1 and "Traceback" not in said, said
    assert said.startswith(f"espnet-quant4 {arguments[0]}: "), said
    for name in named:
        assert str(name) in said, said
    return said


@pytest.mark.parametrize("name", COMMANDS)
def test_right_inputs_are_taken_with_byte_order_mark_and_line_ends_of_windows(
    name, tmp_path, capsys
):
    shown = []
    for at in (tmp_path / "a", tmp_path / "b"):
        arguments, files = COMMANDS[name](at)
        assert len(files) == INPUTS[name]
        if at.name == "b":
            for path in files:
                path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
        status, out, said = run(arguments, capsys)
        assert status == 0, said
        shown.append(out.replace(str(at), ""))
    assert shown[0] == shown[1] != ""


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize(
    ("name", "number"), [(name, i) for name, count in INPUTS.items() for i in range(count)]
)
def test_wrong_inputs_are_one_line_with_the_file(name, number, fault, tmp_path, capsys):
    arguments, files = COMMANDS[name](tmp_path)
    fault(files[number])
    refused(arguments, capsys, files[number].name)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "compare"])
def test_output_that_cannot_be_written_is_refused_before_the_work(name, tmp_path, capsys):
    arguments, _ = COMMANDS[name](tmp_path / "in")
    if "--output" not in arguments:
        arguments += ["--output", ""]
    at = arguments.index("--output") + 1
    write(tmp_path / "file", "")
    arguments[at] = tmp_path / "file" / "below" / "out"
    refused(arguments, capsys, "--output", f"{tmp_path}/file is a file")
    if name in ("study", "make_ablation", "make_results"):
        arguments[at] = tmp_path
        refused(arguments, capsys, "--output", f"{tmp_path}: is a folder")


def test_a_place_without_permission_is_refused(tmp_path, capsys, monkeypatch):
    arguments, _ = study(tmp_path)
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    refused(arguments, capsys, f"{tmp_path} cannot be written to")


@pytest.mark.parametrize("texts", [("", ""), ("amy-1\n", "amy-1\n"), ("amy-1\n", "amy-1 yes\n")])
@pytest.mark.parametrize("scorer", ["builtin", "auto"])
def test_a_reference_without_words_has_no_error_rate(texts, scorer, tmp_path, capsys):
    reference, hypothesis = write(tmp_path / "r", texts[0]), write(tmp_path / "h", texts[1])
    arguments = ["score", reference, hypothesis, "--scorer", scorer]
    refused(arguments, capsys, f"{reference}: the reference holds", "so there is no error rate")


@pytest.mark.parametrize("command", ["score", "compare", "make_results", "make_ablation"])
def test_an_utterance_that_stands_twice_is_named_with_both_lines(command, tmp_path, capsys):
    arguments, files = COMMANDS[command](tmp_path)
    reference = files[1] if command == "make_ablation" else files[0]
    # What a scorer that keeps the last one would take for right.
    reference.write_text("amy-1 press two\namy-1 press one\namy-2 good bye\n")
    refused(arguments, capsys, f"{reference}:2: 'amy-1' stands here and in line 1")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({}, "no list of a table's rows"),
        ([], "no list of a table's rows"),
        ([3], "no list of a table's rows"),
        ([{k: v for k, v in ROW.items() if k != "seed"}], "row 1 has no seed"),
        ([ROW, {k: v for k, v in ROW.items() if k != "wer"}], "row 2 has no wer"),
        ([{**ROW, "seed": "1"}], "row 1 has seed: '1'"),
        ([{**ROW, "wer": None}], "row 1 has wer: None"),
        ([{**ROW, "system": ["a"]}], "row 1 has system: ['a']"),
    ],
)
def test_a_table_of_something_else_is_refused(rows, message, tmp_path, capsys):
    arguments, files = study(tmp_path)
    files[0].write_text(json.dumps(rows))
    refused(arguments, capsys, files[0], message, "what espnet-quant4 results or hybrid-results")


@pytest.mark.parametrize(
    ("make", "content"),
    [(study, "[" * 100_000), (variants, "[" * 20_000), (variants, "a: 2024-13-45\n")],
    ids=["json", "yaml", "date"],
)
def test_what_exhausts_a_parser_is_refused(make, content, tmp_path, capsys):
    arguments, files = make(tmp_path)
    files[0].write_text(content)
    refused(arguments, capsys, files[0], "not valid")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("exp/{variant", "expected '}'"),
        ("exp/variant}", "Single '}'"),
        ("exp/{variant}/{system}", "'system'"),
        ("exp/{}", "valid is such as exp/seed{seed}/asr_{variant}"),
        ("exp/{variant.name}/{0}", "valid is such as"),
        ("exp/all", "{variant} is not in it"),
    ],
)
def test_experiments_that_are_no_pattern_are_refused(pattern, message, tmp_path, capsys):
    arguments, _ = make_ablation(tmp_path)
    arguments[arguments.index("--experiments") + 1] = pattern
    refused(arguments, capsys, f"experiments {pattern!r}", message)


def test_what_would_count_twice_is_refused(tmp_path, capsys):
    arguments, _ = make_ablation(tmp_path)
    at = arguments.index("--seeds") + 1
    refused([*arguments[:at], "1", "2", *arguments[at + 1 :]], capsys, "{seed} is not in it")
    pattern = arguments.index("--experiments") + 1
    arguments[pattern] = f"{tmp_path}/{{seed}}_{{variant}}"
    refused([*arguments[:at], "2", "2", *arguments[at + 1 :]], capsys, "seeds 2 2: valid is each")
    arguments, files = compare(tmp_path)
    arguments[arguments.index("--first") + 1 : arguments.index("--second")] = [files[1], files[1]]
    at = arguments.index("--second") + 1
    arguments[at : at + 1] = [files[2], files[2]]
    refused(arguments, capsys, "--first with --second", "is given twice")
    arguments, _ = make_results(tmp_path)
    refused([*arguments, "--parts", "test", "test"], capsys, "--parts: test is given twice")
    at = arguments.index("--systems") + 1
    arguments.insert(at, arguments[at])
    refused(arguments, capsys, "--systems", "asr_a is given twice")


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (make_results, ["--fs", "0"], "'0': valid are whole numbers, 1 and above"),
        (make_results, ["--fs", "-8000"], "'-8000': valid are"),
        (make_results, ["--fs", "8k"], "'8k': valid are"),
        (compare, ["--samples", "0"], "'0': valid are whole numbers, 1 to 10,000,000"),
        (compare, ["--samples", "1000000000000"], "'1000000000000': valid are"),
        (make_ablation, ["--seeds", "one"], "--seeds"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(make, options, message, tmp_path, capsys):
    arguments, _ = make(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(list(map(str, [*arguments, *options])))
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert options[0] in said and message in said and "Traceback" not in said


def test_a_model_that_cannot_be_read_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.undo()
    arguments, _ = make_results(tmp_path)
    config = tmp_path / "exp/asr_a/config.yaml"
    refused(arguments, capsys, config, "no such file")
    for content, message in (
        ("a: [", "not valid YAML"),
        ("- a\n", "of another task, or not what a training wrote"),
        ("seed: 1\n", "of another task, or not what a training wrote"),
    ):
        write(config, content)
        refused(arguments, capsys, config, message)


def test_a_configuration_without_seed_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.undo()
    arguments, _ = make_results(tmp_path)
    model, options = torch.nn.Linear(1, 1), Namespace(encoder="rnn")
    monkeypatch.setattr(trained_model, "load_trained_model", lambda *_: (model, options))
    refused(arguments, capsys, tmp_path / "exp/asr_a/config.yaml", "no seed in it")


def test_an_interpreter_without_torch_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.undo()
    arguments, _ = make_results(tmp_path)
    write(tmp_path / "exp/asr_a/config.yaml", "seed: 1\n")
    monkeypatch.setitem(sys.modules, "torch", None)
    refused(arguments, capsys, "the package torch is not installed here")


def test_an_overwritten_output_is_whole_or_as_before(tmp_path, capsys):
    arguments, files = study(tmp_path)
    assert run(arguments, capsys)[0] == 0
    before = (tmp_path / "out.json").read_text()
    shutil.copy(files[0], tmp_path / "again.json")
    refused([*arguments, "--results", files[0], tmp_path / "again.json"], capsys, "again.json")
    assert (tmp_path / "out.json").read_text() == before
    assert not list(tmp_path.glob("*.part"))
