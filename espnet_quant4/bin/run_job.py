"""Run commands with their output in log files, and show how far they are.

    python -m espnet_quant4.bin.run_job [--jobs N] [JOB=1:4 | JOB=a,b] LOG COMMAND...

The interface of Kaldi's ``run.pl``, which ESPnet's recipes call ``train_cmd`` and ``decode_cmd``:
``JOB`` in the log's name and in the command stands for each of the values in turn; they run side by
side, at most ``--jobs`` at a time. Ctrl-C ends all of them, after a checkpoint that is just being
written is complete.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from espnet_quant4.report.espnet_log import LogWatcher

POLL_SECONDS = 0.2
SECONDS_BETWEEN_STATUS_LINES = 30.0
LINES_SHOWN_OF_A_FAILURE = 25


class Job:
    """One command with its log.

    Args:
        label: its name in what is shown.
        log: file for its output; a log that is there is overwritten.
        command: arguments, the program first.
    """

    def __init__(self, label: str, log: Path, command: Sequence[str]) -> None:
        self.label, self.log, self.command = label, log, command
        self.watcher = LogWatcher(keys_of(command))
        self._process: subprocess.Popen[bytes] | None = None
        self._read = 0

    def start(self) -> None:
        """Start it, in a process group of its own: a Ctrl-C reaches it through `stop` only."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "wb") as output:
            output.write(f"# {shlex.join(self.command)}\n# {time.asctime()}\n".encode())
            output.flush()
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def poll(self) -> int | None:
        """Its exit status, None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def news(self) -> list[str]:
        """What its log says since the last call that is worth showing."""
        with open(self.log, "rb") as log:
            log.seek(self._read)
            text = log.read()
        # Bars go back to the line's begin instead of ending it.
        complete = text[: max(text.rfind(b"\n"), text.rfind(b"\r")) + 1]
        self._read += len(complete)
        lines = complete.decode(errors="replace").splitlines()
        return [message for line in lines if (message := self.watcher.feed(line)) is not None]

    def stop(self) -> None:
        """End it, with everything that it started."""
        if self._process is None or self._process.poll() is not None:
            return
        wait_for_checkpoints(self.log.parent)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(timeout=3)
                break
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue

    def failure(self) -> str:
        """The end of its log, to show why it failed."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        end = "\n".join(f"    {line[:400]}" for line in lines[-LINES_SHOWN_OF_A_FAILURE:])
        name = self.label or Path(self.command[0]).name
        return f"{name} failed with exit status {self.poll()}; the end of {self.log}:\n{end}"


def wait_for_checkpoints(folder: Path, quiet: float = 1.0, patience: float = 10.0) -> None:
    """Wait until no checkpoint in ``folder`` has changed for ``quiet`` seconds.

    ESPnet writes checkpoints in place, so ending it in the middle of that loses the epoch.
    """
    end = time.monotonic() + patience
    while time.monotonic() < end:
        changed = [p.stat().st_mtime for p in folder.glob("*.pth") if p.is_file()]
        if not changed or time.time() - max(changed) > quiet:
            return
        time.sleep(0.1)


def keys_of(command: Sequence[str]) -> int:
    """Return how many utterances the ``--key_file`` of a decoding command names; 0 without one."""
    for option, value in itertools.pairwise(command):
        if option == "--key_file" and Path(value).is_file():
            return len(Path(value).read_bytes().splitlines())
    return 0


def expand(job: str | None, log: str, command: Sequence[str]) -> list[tuple[str, Path, list[str]]]:
    """Return ``(label, log, command)`` for each value of ``JOB=FIRST:LAST`` or ``JOB=a,b``.

    Raises:
        ValueError: for a job specification of another form.
    """
    if job is None:
        return [("", Path(log), list(command))]
    specification = job.removeprefix("JOB=")
    first, colon, last = specification.partition(":")
    values = [value for value in specification.split(",") if value]
    if colon:
        numbers = first.isdigit() and last.isdigit()
        values = [str(i) for i in range(int(first), int(last) + 1)] if numbers else []
    if not values or "JOB" in values:
        raise ValueError(f"{job}: expected JOB=FIRST:LAST or JOB=NAME,NAME, such as JOB=1:4")
    if "JOB" not in log:
        raise ValueError(f"{log}: the log needs JOB in its name, or all jobs write the same file")
    return [
        (
            f"job {value}" if colon else value,
            Path(log.replace("JOB", value)),
            [word.replace("JOB", value) for word in command],
        )
        for value in values
    ]


class Display:
    """Lines for what happened; on a terminal also a last line for what is going on."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._last = time.monotonic()

    def line(self, text: str) -> None:
        """Print a line that stays."""
        print(f"\r\033[K{text}" if self._terminal else text, flush=True)
        self._last = time.monotonic()

    def status(self, text: str) -> None:
        """Show the current state: in place on a terminal, else as a line now and then."""
        if not text:
            return
        if self._terminal:
            width = os.get_terminal_size().columns - 1
            print(f"\r\033[K{text[:width]}", end="", flush=True)
        elif time.monotonic() - self._last > SECONDS_BETWEEN_STATUS_LINES:
            self.line(text)

    def close(self) -> None:
        """Remove the last line."""
        if self._terminal:
            print("\r\033[K", end="", flush=True)


def run(jobs: Sequence[Job], at_a_time: int) -> int:
    """Run all jobs; returns 0, or 1 when one failed, which ends the others."""
    waiting, running = list(jobs), list[Job]()
    display = Display()

    def named(job: Job, text: str) -> str:
        return f"  {job.label}: {text}" if job.label else f"  {text}"

    try:
        while waiting or running:
            while waiting and len(running) < at_a_time:
                running.append(waiting.pop(0))
                running[-1].start()
            time.sleep(POLL_SECONDS)
            for job in list(running):
                status = job.poll()
                for message in job.news():
                    display.line(named(job, message))
                if status is not None:
                    running.remove(job)
                if status:
                    display.line(job.failure())
                    return 1
            states = [named(job, s).strip() for job in running if (s := job.watcher.status())]
            rest = f"; {len(waiting)} more to start" if waiting else ""
            display.status("  " + " | ".join(states) + rest if states else "")
    finally:
        display.close()
        for job in running:
            job.stop()
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="run_job", description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=0, help="how many at a time (0: all)")
    parser.add_argument("--gpu", type=int, default=0, help="taken as Kaldi's run.pl does; unused")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="[JOB=...] LOG COMMAND...")
    args = parser.parse_args(arguments)
    rest = list(args.rest)
    job = rest.pop(0) if rest and rest[0].startswith("JOB=") else None
    if len(rest) < 2:
        parser.error("a log file and a command are needed")
    try:
        jobs = [Job(*spec) for spec in expand(job, rest[0], rest[1:])]
    except ValueError as error:
        parser.error(str(error))

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    try:
        return run(jobs, args.jobs or len(jobs))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", flush=True)
        return 130


if __name__ == "__main__":
    sys.exit(main())
