"""Every command that a document shows: its program is there and takes these options."""

import argparse
import configparser
import importlib
import importlib.util
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from benchmarks.scripts import load
from documented import Command, all_commands, split
from interpreter import REPOSITORY

from espnet_quant4.bin import main as commands

COMMANDS = all_commands()
TARGETS = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.M))


class Parsed(BaseException):
    """Ends a command behind its options; no error that it might handle."""


@pytest.fixture
def parses(monkeypatch, tmp_path):
    """A function that hands words to a command and says whether it took them as options."""

    def check(main, words, part):
        def parse(parser, arguments=None, namespace=None):
            if part:
                for entry in (*parser._actions, *parser._mutually_exclusive_groups):
                    entry.required = False
                for action in parser._actions:
                    # An option may be shown without its value.
                    action.nargs = "?" if action.nargs is None else action.nargs
            namespace, rest = parser.parse_known_args(arguments, namespace)
            assert not rest, f"no options: {rest}"
            raise Parsed

        # Configurations are read before anything else; those of documents are the reader's.
        monkeypatch.chdir(tmp_path)
        for word in words:
            if word.endswith(".yaml") and not Path(word).is_absolute():
                Path(word).parent.mkdir(parents=True, exist_ok=True)
                Path(word).write_text("{}\n")
        with monkeypatch.context() as patched:
            patched.setattr(argparse.ArgumentParser, "parse_args", parse)
            with pytest.raises(Parsed):
                main(words)

    return check


def run_script(script, options):
    """Let a shell script read its options and then show its help."""
    return subprocess.run(
        [str(script), *options, "--help"], cwd=script.parent, capture_output=True, text=True
    )


def check_script(command):
    name, *options = command.words
    folder = REPOSITORY / command.folder
    # A document beside a recipe's own, or about recipes of both kinds.
    places = [folder / name, folder.parent / name]
    found = [place for place in places if place.is_file()]
    if not found and name == "./run.sh":
        found = [REPOSITORY / "egs/common" / driver for driver in ("asr.sh", "hybrid.sh")]
    assert found, f"no {name} in {folder}"
    done = [run_script(place, options) for place in found]
    assert any(d.returncode == 0 for d in done), done[0].stderr


def check_make(command):
    assert set(command.words[1:]) <= TARGETS


def check_pip(command):
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    assert command.words[1] == "install"
    for word in command.words[2:]:
        if match := re.fullmatch(r"\.\[(.+)\]", word):
            assert set(match[1].split(",")) <= set(setup["options.extras_require"])
        else:
            # Of packages that are none of ours.
            assert word == "." or word.startswith("--") or word == "fms-model-optimizer"


def check_recipe_program(command):
    """A script in a recipe's folder: it and the configurations that it is given are there."""
    folder = REPOSITORY / command.folder
    assert (folder / command.words[1]).is_file()
    for word in command.words:
        if word.endswith(".yaml"):
            assert (folder / word).is_file(), word


def check_python(command, parses):
    if command.words[1] != "-m":
        script = REPOSITORY / command.words[1]
        if command.words[1].startswith("benchmarks/"):
            parses(load(script.stem).main, list(command.words[2:]), command.part)
        else:
            check_recipe_program(command)
        return
    module, *options = command.words[2:]
    assert importlib.util.find_spec(module) is not None
    if ".bin." in module and module != "espnet_quant4.bin.run_job":
        found = importlib.import_module(module)
        # ESPnet's read their options from get_parser; ours are run.
        if module.startswith("espnet2."):
            parses(lambda words: found.get_parser().parse_args(words), options, command.part)
        else:
            parses(found.main, options, command.part)


def check(command, parses):
    """Raise AssertionError for a command that does not work as it is shown."""
    program = command.words[0]
    if program == "espnet-quant4":
        name, *options = command.words[1:]
        assert name in commands.COMMANDS, f"valid: {', '.join(commands.COMMANDS)}"
        module = importlib.import_module(f"espnet_quant4.bin.{commands.COMMANDS[name][0]}")
        parses(module.main, options, command.part)
    elif program == "python":
        check_python(command, parses)
    elif program == "make":
        check_make(command)
    elif program == "pip":
        check_pip(command)
    elif program == "cd":
        assert (REPOSITORY / command.folder / command.words[1]).is_dir()
    elif program == ".ci/run":
        assert (REPOSITORY / program).is_file()
    elif program.endswith(".sh"):
        check_script(command)
    else:
        assert program == "export", f"what is {program}?"


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_works_as_shown(command, parses):
    check(command, parses)


def test_commands_are_found():
    """Else the test above would pass for want of any."""
    shown = {(command.words[0], command.where.name) for command in COMMANDS}
    for program, document in (
        ("espnet-quant4", "README.md"),
        ("make", "CONTRIBUTING.md"),
        ("python", "int4.md"),
        ("espnet-quant4", "from-fp32.md"),
        ("./run.sh", "switchboard.md"),
        ("egs/an4/study.sh", "accuracy.md"),
        ("espnet-quant4", "search.py"),
        ("python", "equality.py"),
        ("pip", "hybrid.md"),
    ):
        assert (program, document) in shown


@pytest.mark.parametrize(
    "wrong",
    [
        "espnet-quant4 no-such-command",
        "espnet-quant4 score reference hypothesis --no_such_option 1",
        "espnet-quant4 transcribe model.int4 a.wav --format xml",
        "espnet-quant4 search exp/asr_tailored --output mixed.yaml",
        "espnet-quant4 calibrate --no_such_option 1 ...",
        "python benchmarks/no_such.py",
        "python benchmarks/lstm.py --shapes z9",
        "python -m espnet_quant4.bin.no_such",
        "make no-such-target",
        'pip install ".[no_such_extra]"',
        "pip install espnet_quant4",
        "cd no/such/folder",
        "./run.sh --no_such_option 1",
        "egs/an4/study.sh --no_such_option 1",
        "egs/no_such/run.sh",
        "no-such-program",
    ],
)
def test_a_wrong_one_is_told(wrong, parses):
    (command,) = split(wrong, Path("docs/x.md"), Path())
    with pytest.raises(
        (AssertionError, SystemExit, ModuleNotFoundError, FileNotFoundError, pytest.fail.Exception)
    ):
        check(command, parses)


def test_words_that_stand_for_others_are_left_out():
    (command,) = split("espnet-quant4 calibrate --a b [data and token options]", Path("x"), Path())
    assert command == Command(("espnet-quant4", "calibrate", "--a", "b"), Path("x"), Path())
    assert command.part
    first, second = split("cd egs && X=1 ./run.sh --b 'c d'   # why", Path("x"), Path())
    assert first.words == ("cd", "egs") and second.folder == Path("egs")
    assert second.words == ("./run.sh", "--b", "c d") and not second.part
    assert shlex.join(second.words) == "./run.sh --b 'c d'"
