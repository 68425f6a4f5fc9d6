"""Builds ``libquant4``, the C++ library of the INT4 kernels, from ``csrc``.

It is a plain shared library with a C interface, loaded by `espnet_quant4.kernels.library`: it knows
neither PyTorch nor a version of Python, so one build serves all of them. Installing the package
builds it where there is a compiler; ``python -m espnet_quant4.kernels.build`` does so later.

Uses the standard library alone: `setup.py` runs it before anything else is installed.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "csrc"
LIBRARY = "libquant4.dylib" if sys.platform == "darwin" else "libquant4.so"

COMMON = (
    "dispatch",
    "linear",
    "lstm",
    "lstm_training",
    "threads",
    "embedding",
    "fake_quantize",
    "limits",
    "multiply_generic",
)
# The float part rounds as it stands: no -ffast-math.
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1")


@dataclass(frozen=True)
class InstructionSet:
    """A file that is compiled for one instruction set.

    Attributes:
        source: its name without suffix.
        flags: of the compiler.
        without: macro that leaves it out where the compiler does not know the flags.
    """

    source: str
    flags: tuple[str, ...]
    without: str


INSTRUCTION_SETS = {
    "x86_64": (
        InstructionSet("multiply_avx2", ("-mavx2", "-mfma", "-DQUANT4_WIDTH=8"), ""),
        InstructionSet(
            "multiply_avxvnni",
            ("-mavx2", "-mfma", "-mavxvnni", "-DQUANT4_WIDTH=8"),
            "QUANT4_WITHOUT_AVX_VNNI",
        ),
        InstructionSet(
            "multiply_avx512vnni",
            # GCC's own header of AVX-512 sets off its warning.
            (
                "-mavx2",
                "-mfma",
                "-mavx512f",
                "-mavx512bw",
                "-mavx512vl",
                "-mavx512vnni",
                "-DQUANT4_WIDTH=16",
                "-Wno-maybe-uninitialized",
            ),
            "QUANT4_WITHOUT_AVX512_VNNI",
        ),
    ),
    "aarch64": (InstructionSet("multiply_neon", ("-march=armv8.2-a+dotprod",), ""),),
}
INSTRUCTION_SETS["AMD64"] = INSTRUCTION_SETS["x86_64"]
INSTRUCTION_SETS["arm64"] = INSTRUCTION_SETS["aarch64"]


class BuildError(RuntimeError):
    """The library could not be built."""


def find_compiler() -> list[str]:
    """Return the command of the C++ compiler: ``$CXX``, or the first of c++, g++, clang++.

    Raises:
        BuildError: where there is none.
    """
    if os.environ.get("CXX"):
        return shlex.split(os.environ["CXX"])
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name):
            return [name]
    raise BuildError("no C++ compiler: looked for $CXX, c++, g++ and clang++")


def knows_flags(compiler: Sequence[str], flags: Sequence[str]) -> bool:
    """Whether a compiler accepts these flags."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "empty.cpp")
        source.write_text("int main() { return 0; }\n", encoding="utf-8")
        command = [*compiler, *flags, "-c", str(source), "-o", str(Path(folder, "empty.o"))]
        try:
            return subprocess.run(command, capture_output=True).returncode == 0
        except OSError:
            return False


def build(
    output: Path | None = None,
    *,
    instruction_sets: Sequence[InstructionSet] | None = None,
    extra_flags: Sequence[str] = (),
) -> Path:
    """Compile and link the library.

    Args:
        output: where to; beside this file if None.
        instruction_sets: what to compile besides plain C++; what the processor's family has if None.
        extra_flags: for compiling and linking, such as `SANITIZERS`.

    Returns:
        The library's path. It is replaced at once, so a process that has the old one loaded goes on.

    Raises:
        BuildError: with the compiler's message.
    """
    output = HERE / LIBRARY if output is None else output
    compiler = find_compiler()
    jobs = [(name, list(FLAGS)) for name in COMMON]
    left_out = []
    if instruction_sets is None:
        instruction_sets = INSTRUCTION_SETS.get(platform.machine(), ())
    for entry in instruction_sets:
        if entry.without and not knows_flags(compiler, entry.flags):
            left_out.append(f"-D{entry.without}")
        else:
            jobs.append((entry.source, [*FLAGS, *entry.flags]))
    static = ["-static-libstdc++", "-static-libgcc"]
    if extra_flags or not knows_flags(compiler, ["-Werror", *static]):
        static = []
    with tempfile.TemporaryDirectory() as folder:
        objects = [str(Path(folder, f"{name}.o")) for name, _ in jobs]
        commands = [
            [
                *compiler,
                *flags,
                *left_out,
                *extra_flags,
                "-c",
                str(SOURCES / f"{name}.cpp"),
                "-o",
                target,
            ]
            for (name, flags), target in zip(jobs, objects, strict=True)
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(_run, commands))
        output.parent.mkdir(parents=True, exist_ok=True)
        partial = output.with_name(f".{output.name}.{os.getpid()}")
        try:
            link = [*compiler, "-shared", *extra_flags, "-o", str(partial)]
            _run([*link, *objects, *static, "-pthread"])
            os.replace(partial, output)
        finally:
            partial.unlink(missing_ok=True)
    return output


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise BuildError(f"{command[0]}: {error.strerror}") from error
    if done.returncode:
        raise BuildError(f"{' '.join(command)}\nfailed:\n{done.stderr[-4000:]}")
    if done.stderr:
        print(done.stderr, file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: build, say where the library is; 1 if it cannot be built."""
    parser = argparse.ArgumentParser(
        prog="python -m espnet_quant4.kernels.build", description=__doc__
    )
    parser.add_argument("--output", type=Path, help="default: beside this file")
    parser.add_argument(
        "--sanitize", action="store_true", help="with address and undefined behaviour"
    )
    args = parser.parse_args(arguments)
    try:
        path = build(args.output, extra_flags=SANITIZERS if args.sanitize else ())
    except BuildError as error:
        print(f"libquant4: {error}", file=sys.stderr)
        return 1
    print(f"libquant4: built {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
