"""What all commands do alike."""

import subprocess
import sys

import pytest

from espnet_quant4.bin.command import run_command
from espnet_quant4.bin.main import main


def raising(error):
    def command(arguments):
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("bits: 9; valid: 2 to 8"), "bits: 9; valid: 2 to 8"),
        (FileNotFoundError(2, "No such file or directory", "a.yaml"), "a.yaml: no such file"),
        (
            ModuleNotFoundError("No module named 'torch.x'", name="torch.x"),
            "the package torch is not",
        ),
    ],
)
def test_expected_errors_are_one_line(error, message, capsys):
    assert run_command("score", raising(error)) == 1
    shown = capsys.readouterr().err
    assert shown.startswith(f"espnet-quant4 score: {message}")
    assert shown.count("\n") == 1


def test_a_traceback_is_to_be_had(monkeypatch):
    monkeypatch.setenv("ESPNET_QUANT4_TRACEBACK", "1")
    with pytest.raises(ValueError, match="bits"):
        run_command("score", raising(ValueError("bits")))


def test_faults_of_the_program_keep_their_traceback():
    with pytest.raises(AttributeError):
        run_command("score", raising(AttributeError("no such attribute")))


def test_an_interruption_has_the_exit_status_of_shells():
    assert run_command("score", raising(KeyboardInterrupt())) == 130


def test_a_command_whose_package_is_missing_says_so(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "espnet_quant4.bin.score", None)
    assert main(["score", "a", "b"]) == 1
    assert "espnet-quant4 score: " in capsys.readouterr().err


def run_in_shell(code, **environment):
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {code}"],
        capture_output=True,
        text=True,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": ":".join(filter(None, sys.path)),
            **environment,
        },
    )


PRINTS = (
    "from espnet_quant4.bin.command import run_command; import sys; "
    "sys.exit(run_command('info', lambda _: [print('caf\\u00e9', i) for i in range(100000)] and 0))"
)


def test_a_closed_pipe_ends_a_command_in_silence():
    done = run_in_shell(f'{sys.executable} -c "{PRINTS}" | head -n 1')
    assert done.stderr == ""
    assert done.returncode == 141


def test_an_ascii_terminal_gets_escapes():
    code = PRINTS.replace("100000", "1")
    done = run_in_shell(f'{sys.executable} -c "{code}"', PYTHONIOENCODING="ascii")
    assert done.stdout == "caf\\xe9 0\n"
    assert done.returncode == 0


def test_a_stream_whose_file_became_a_pipe_is_written_to(tmp_path):
    code = (
        "import os, sys; from espnet_quant4.bin.command import run_command; os.dup2(2, 1); "
        "sys.exit(run_command('info', lambda _: print('written')))"
    )
    done = run_in_shell(f'{sys.executable} -c "{code}" > {tmp_path}/file')
    assert (done.returncode, done.stderr) == (0, "written\n")
