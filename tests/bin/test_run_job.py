"""The recipes' job runner: logs, several jobs, failures, and what Ctrl-C leaves behind."""

import os
import signal
import subprocess
import sys
import time

import pytest

from espnet_quant4.bin import run_job

PYTHON = sys.executable


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def is_alive(process_id):
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{process_id}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] != "Z"


def test_a_log_gets_the_command_and_all_its_output(tmp_path):
    log = tmp_path / "deep" / "train.log"
    code = "import sys; print('out'); print('err', file=sys.stderr)"
    assert run_job.main([str(log), PYTHON, "-c", code]) == 0
    lines = log.read_text().splitlines()
    assert lines[0].startswith("# ") and "print" in lines[0]
    assert sorted(lines[2:]) == ["err", "out"]


def test_job_stands_for_each_number(tmp_path):
    log = tmp_path / "decode.JOB.log"
    command = [PYTHON, "-c", "print('this is JOB')"]
    assert run_job.main(["--jobs", "1", "JOB=1:3", str(log), *command]) == 0
    for number in (1, 2, 3):
        text = (tmp_path / f"decode.{number}.log").read_text()
        assert text.endswith(f"this is {number}\n")


def test_job_stands_for_each_name(tmp_path, capsys):
    log = tmp_path / "JOB" / "train.log"
    code = "print('1/2epoch started, 1epoch results: [train] loss=3.0, time=JOB')"
    assert run_job.main(["JOB=,naive,tailored", str(log), PYTHON, "-c", code]) == 0
    for name in ("naive", "tailored"):
        assert (tmp_path / name / "train.log").read_text().endswith(f"time={name}\n")


def test_progress_of_training_and_decoding_is_shown(tmp_path, capsys):
    keys = tmp_path / "keys.scp"
    keys.write_text("a 1\nb 2\n")
    results = (
        "3epoch results: [train] loss=1.500, time=2 seconds, [valid] loss=2.500, time=1 second"
    )
    code = f"print('(trainer:1) INFO: 3/4epoch started'); print('INFO: {results}')"
    assert run_job.main([str(tmp_path / "log"), PYTHON, "-c", code, "--key_file", str(keys)]) == 0
    assert (
        "epoch 3/4: train loss 1.500, valid loss 2.500; took 2 seconds" in capsys.readouterr().out
    )
    assert run_job.keys_of(["decode", "--key_file", str(keys)]) == 2


def test_a_bar_that_never_ends_its_line_is_followed(tmp_path):
    job = run_job.Job("", tmp_path / "log", ["true"])
    job.log.write_bytes(
        "GMM:  25%|██▌       | 1/4 [00:00<?]\rGMM:  50%|█████     | 2/4 [0".encode()
    )
    assert job.news() == []
    assert job.watcher.status() == "GMM 1/4"


def test_a_failure_ends_the_others_and_shows_its_log(tmp_path, capsys):
    code = "import sys, time; JOB == 2 and sys.exit('no such corpus'); time.sleep(60)"
    started = time.monotonic()
    status = run_job.main(["JOB=1:2", str(tmp_path / "JOB.log"), PYTHON, "-c", code])
    assert status == 1
    assert time.monotonic() - started < 30
    shown = capsys.readouterr().out
    assert "job 2 failed with exit status 1" in shown and "no such corpus" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["JOB=3:1", "x.JOB", "true"], "expected JOB=FIRST:LAST"),
        (["JOB=a:b", "x.JOB", "true"], "expected JOB=FIRST:LAST"),
        (["JOB=,", "x.JOB", "true"], "expected JOB=FIRST:LAST"),
        (["JOB=1:2", "same.log", "true"], "the log needs JOB in its name"),
        (["only.log"], "a log file and a command are needed"),
    ],
)
def test_wrong_arguments_are_explained(arguments, message, capsys):
    with pytest.raises(SystemExit):
        run_job.main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_all_that_was_started(tmp_path, number):
    # A child of the job, such as a data loader's worker, must not survive either.
    code = (
        "import os, subprocess, sys, time; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(120)']); "
        f"open(r'{tmp_path}/pids.part', 'w').write(f'{{os.getpid()}} {{child.pid}}'); "
        f"os.rename(r'{tmp_path}/pids.part', r'{tmp_path}/pids'); time.sleep(120)"
    )
    runner = subprocess.Popen(
        [PYTHON, "-m", "espnet_quant4.bin.run_job", str(tmp_path / "log"), PYTHON, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_until((tmp_path / "pids").exists)
    process_ids = [int(n) for n in (tmp_path / "pids").read_text().split()]
    runner.send_signal(number)
    shown, _ = runner.communicate(timeout=30)
    assert runner.returncode == 130
    assert "the same command goes on from here" in shown
    wait_until(lambda: not any(map(is_alive, process_ids)))


def test_a_checkpoint_that_is_being_written_is_waited_for(tmp_path):
    (tmp_path / "checkpoint.pth").write_bytes(b"half")
    started = time.monotonic()
    run_job.wait_for_checkpoints(tmp_path, quiet=0.5)
    assert 0.3 < time.monotonic() - started < 5
    started = time.monotonic()
    run_job.wait_for_checkpoints(tmp_path / "no-such-folder")
    assert time.monotonic() - started < 0.3
