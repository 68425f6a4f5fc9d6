"""An interpreter for tests of whole recipes that has ESPnet imported already.

A recipe starts some forty processes, and importing ESPnet takes each of them longer than what it has to
do here. A server imports it once and forks for every command that needs it; all others run in the real
interpreter. Commands, arguments, environment, folder, output and exit status are those of the recipe.
"""

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

# What imports ESPnet's tasks.  Not Kaldi's modules, which want a process of their own.
HEAVY = (
    "espnet2.bin.asr_",
    "espnet2.bin.pack",
    "espnet2.bin.aggregate",
    "espnet_quant4.bin.hybrid_train",
    "espnet_quant4.bin.hybrid_inference",
    "espnet_quant4.bin.hybrid_pack",
    "espnet_quant4.bin.hybrid_results",
    "espnet_quant4.bin.main",
)
CLIENT = """#!{python} -IS
import json, os, socket, sys
command = sys.argv[1:]
if command[:1] != ["-m"] or not command[1].startswith({heavy!r}):
    os.execv({python!r}, [{python!r}, *command])
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b"!"], [0, 1, 2])
    request = dict(command=command[1:], folder=os.getcwd(), environment=dict(os.environ))
    server.sendall(json.dumps(request).encode())
    server.shutdown(socket.SHUT_WR)
    status = server.recv(16)
sys.exit(int(status or 1))
"""


class WarmPython:
    """Starts the server; ``path`` is a program to be called in place of ``python3``.

    Args:
        folder: an empty folder for it.
    """

    def __init__(self, folder):
        address = folder / "socket"
        self.path = folder / "python3"
        self.path.write_text(
            CLIENT.format(python=sys.executable, heavy=HEAVY, address=str(address))
        )
        self.path.chmod(0o755)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._server = subprocess.Popen(
            [sys.executable, __file__, str(address)], env=environment, start_new_session=True
        )
        until = time.monotonic() + 300
        while not address.exists():
            assert self._server.poll() is None and time.monotonic() < until, "no warm Python"
            time.sleep(0.05)

    def stop(self):
        """End it with all that it runs."""
        os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait()


def serve(address):
    """Import, then fork for each connection."""
    import espnet2.bin.asr_inference
    import espnet2.bin.asr_train
    import espnet2.bin.pack  # noqa: F401

    import espnet_quant4.hybrid.scorer
    import espnet_quant4.hybrid.task
    import espnet_quant4.report.results  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        unfinished = f"{address}.part"
        listener.bind(unfinished)
        listener.listen(16)
        # Whoever waits for the address finds one that answers.
        os.rename(unfinished, address)
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                # Commands wait for children of their own.
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                answer(connection)
            connection.close()


def answer(connection):
    """Run one command and end this process."""
    _, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
    request = json.loads(b"".join(iter(lambda: connection.recv(65536), b"")))
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    # Those that are there took what they wrote to for a file, and now it may be a pipe.
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["command"]
    sys.path[0] = request["folder"]
    status = 0
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(str(status).encode())
    os._exit(status)


if __name__ == "__main__":
    # Folders of tests are no place to import from.
    sys.path[0] = str(Path(__file__).parents[2])
    serve(sys.argv[1])
