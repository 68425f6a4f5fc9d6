"""Instruction sets that this processor may lack, bit for bit against the definition.

VNNI: the library is built with the one instruction computed byte by byte (`emulated_vnni.h`). NEON:
cross-compiled and run by qemu, where both are installed (Debian: g++-aarch64-linux-gnu, qemu-user).
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from espnet_quant4.kernels import build, native

HERE = Path(__file__).parent
AVX2 = ("-mavx2", "-mfma")

pytestmark = pytest.mark.slow


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or not native.instruction_sets().get("avx2"),
    reason="needs a processor with AVX2",
)
def test_vnni_with_its_instruction_emulated(tmp_path):
    library = build.build(
        tmp_path / "emulated.so",
        instruction_sets=[
            build.InstructionSet("multiply_avx2", (*AVX2, "-DQUANT4_WIDTH=8"), ""),
            build.InstructionSet("multiply_avxvnni", (*AVX2, "-DQUANT4_WIDTH=8"), ""),
            build.InstructionSet(
                "multiply_avx512vnni", (*AVX2, "-DQUANT4_WIDTH=16", "-Wno-psabi"), ""
            ),
        ],
        extra_flags=["-include", str(HERE / "emulated_vnni.h")],
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            str(HERE / "test_native.py"),
            str(HERE / "test_native_lstm.py"),
            "-k",
            "not environment and not without and not fork",
        ],
        env={**os.environ, "ESPNET_QUANT4_LIBRARY": str(library), "QUANT4_EXPECT": "avx512_vnni"},
        capture_output=True,
        text=True,
        cwd=HERE.parents[1],
    )
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.skipif(
    not shutil.which("aarch64-linux-gnu-g++") or not shutil.which("qemu-aarch64"),
    reason="needs g++-aarch64-linux-gnu and qemu-user",
)
def test_neon_under_qemu(tmp_path):
    program = compile_fuzzer(
        tmp_path, ["aarch64-linux-gnu-g++"], build.INSTRUCTION_SETS["aarch64"], ["-static"]
    )
    done = subprocess.run(
        ["qemu-aarch64", "-cpu", "max", program, "150"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "neon_dot" in done.stdout


def test_fuzzer_on_this_processor(tmp_path):
    sets = build.INSTRUCTION_SETS.get(platform.machine(), ())
    program = compile_fuzzer(tmp_path, build.find_compiler(), sets, [])
    done = subprocess.run([program, "300"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for name, works in native.instruction_sets().items():
        assert (f"{name}:" in done.stdout) == works


def compile_fuzzer(folder, compiler, instruction_sets, flags):
    """Build `fuzz_kernels.cpp` with all sources of the library."""
    objects, jobs = [], [(name, ()) for name in build.COMMON]
    jobs += [(entry.source, entry.flags) for entry in instruction_sets]
    for name, own in jobs:
        objects.append(str(folder / f"{name}.o"))
        source = str(build.SOURCES / f"{name}.cpp")
        subprocess.run([*compiler, *build.FLAGS, *own, "-c", source, "-o", objects[-1]], check=True)
    program = str(folder / "fuzz")
    subprocess.run(
        [
            *compiler,
            *build.FLAGS,
            f"-I{build.SOURCES}",
            str(HERE / "fuzz_kernels.cpp"),
            *objects,
            *flags,
            "-pthread",
            "-o",
            program,
        ],
        check=True,
    )
    return program
