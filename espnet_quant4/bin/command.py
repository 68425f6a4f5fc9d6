"""What all commands do alike: expected errors become one line, and no traceback.

A wrong file, option or model is the user's to mend, so they read what is wrong and not where it was
found. ``ESPNET_QUANT4_TRACEBACK=1`` shows that too.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence

TRACEBACK = "ESPNET_QUANT4_TRACEBACK"

# As a shell reports a program that a signal ended.
INTERRUPTED = 130
PIPE_CLOSED = 141


def run_command(
    name: str,
    main: Callable[[Sequence[str] | None], int | None],
    arguments: Sequence[str] | None = None,
) -> int:
    """Run a command's ``main`` and return its exit status.

    1 where it raised an error that a user can mend (`ValueError`, `OSError`, a package that is not
    installed), 130 on Ctrl-C, 141 where what reads its output has gone.

    Args:
        name: as in ``espnet-quant4 NAME``.
        main: takes arguments, or None for those of the process.
        arguments: handed on.
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal that knows ASCII only shows escapes instead of ending the run. Of a stream whose
        # file became a pipe Python asks for its place, which a pipe has none of.
        with contextlib.suppress(OSError):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
    try:
        status = int(main(arguments) or 0)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes once more at exit, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if os.environ.get(TRACEBACK, "") not in ("", "0"):
            raise
        print(f"espnet-quant4 {name}: {describe(error)}", file=sys.stderr)
        return 1


def describe(error: Exception) -> str:
    """Return an error as a sentence for users."""
    if isinstance(error, OSError) and error.strerror:
        what = error.strerror[0].lower() + error.strerror[1:]
        return what if error.filename is None else f"{error.filename}: {what}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"the package {error.name.partition('.')[0]} is not installed here: {error}"
    return str(error) or type(error).__name__
