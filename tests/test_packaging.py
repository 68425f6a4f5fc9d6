"""What gets installed: the wheel, the source archive and the editable install, each with the .pth.

Nothing is downloaded: builds use the setuptools of the environment that runs the tests.
"""

import base64
import ctypes
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
from interpreter import PTH, Interpreter
from tracked import copy_tracked, tracked_files

import espnet_quant4
from espnet_quant4.kernels.build import LIBRARY as LIBRARY_NAME
from espnet_quant4.kernels.native import INTERFACE_VERSION

BUILD = """\
import sys
from setuptools import build_meta
print(getattr(build_meta, sys.argv[1])(sys.argv[2]))
"""


LEFT_BEHIND = (
    "egs/an4/asr1/exp/asr_fp32/train.log",
    "egs/an4/hybrid1/data/train/text",
    "egs/swbd/asr1/asr.sh",
    "egs/swbd/asr1/utils/run.pl",
    "egs/swbd/asr1/conf/queue.conf",
    "tests/__pycache__/test_hook.cpython-312.pyc",
    "espnet_quant4/kernels/libother.so",
    "exp/demo/results.json",
    ".venv/pyvenv.cfg",
)

LIBRARY = f"espnet_quant4/kernels/{LIBRARY_NAME}"


def build(kind: str, source: Path, out: Path, compiler: str | None = None) -> Path:
    """Call one of the build backend's functions (PEP 517, 660) in `source`."""
    out.mkdir(exist_ok=True)
    command = [sys.executable, "-c", BUILD, f"build_{kind}", str(out)]
    environment = dict(os.environ) if compiler is None else {**os.environ, "CXX": compiler}
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert ("INT4 kernels are not built" in done.stderr) == (compiler is not None)
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built from, for building leaves files behind."""
    folder = copy_tracked(tmp_path_factory.mktemp("source") / "espnet_quant4", ".")
    # A package that lies beside ours must not get into the wheel.
    (folder / "tests" / "__init__.py").write_text("")
    # Nor what runs and builds leave behind into the source archive.
    for name in LEFT_BEHIND:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", source, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    return message_from_bytes(read(wheel, "METADATA"))


def read(wheel: Path, name: str) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        (found,) = [n for n in archive.namelist() if n.endswith(f".dist-info/{name}")]
        return archive.read(found)


def files(wheel: Path) -> set[str]:
    """The names in a wheel, after a check that its RECORD has them all with the right hash."""
    recorded = dict(line.split(",", 1) for line in read(wheel, "RECORD").decode().splitlines())
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        assert names == set(recorded)
        for name in names:
            if not name.endswith("/RECORD"):
                digest = hashlib.sha256(archive.read(name)).digest()
                text = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
                assert recorded[name] == f"sha256={text},{archive.getinfo(name).file_size}"
    return names


def test_wheel_holds_the_package_and_the_pth(wheel: Path, source: Path) -> None:
    installed = {name for name in files(wheel) if ".dist-info/" not in name}
    package = source / "espnet_quant4"
    found = [*package.rglob("*.py"), *package.glob("conf/scheme/*.yaml"), package / "py.typed"]
    found += package.glob("kernels/csrc/*")
    assert installed == {PTH.name, LIBRARY, *(str(path.relative_to(source)) for path in found)}
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(PTH.name) == PTH.read_bytes()


def test_wheel_serves_every_python_of_a_platform(wheel: Path) -> None:
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert wheel.name == f"espnet_quant4-{espnet_quant4.__version__}-py3-none-{platform}.whl"
    assert b"Root-Is-Purelib: false" in read(wheel, "WHEEL")


def test_library_knows_neither_python_nor_torch(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        library = ctypes.CDLL(archive.extract(LIBRARY, tmp_path))
    library.quant4_interface_version.restype = ctypes.c_int64
    assert library.quant4_interface_version() == INTERFACE_VERSION
    if shutil.which("ldd"):
        linked = subprocess.run(
            ["ldd", str(tmp_path / LIBRARY)], capture_output=True, text=True, check=True
        ).stdout
        assert "torch" not in linked and "python" not in linked


@pytest.mark.parametrize("compiler", ["/nonexistent/c++", "false"])
def test_wheel_without_a_compiler_is_of_pure_python(
    compiler: str, source: Path, tmp_path: Path
) -> None:
    shutil.copytree(source, tmp_path / "source", ignore=shutil.ignore_patterns("build", "*.so"))
    wheel = build("wheel", tmp_path / "source", tmp_path / "out", compiler)
    assert wheel.name == f"espnet_quant4-{espnet_quant4.__version__}-py3-none-any.whl"
    assert LIBRARY not in files(wheel)
    assert b"Root-Is-Purelib: true" in read(wheel, "WHEEL")


def test_wheel_from_the_source_archive_is_the_same(
    sdist: Path, wheel: Path, tmp_path: Path
) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert files(build("wheel", unpacked, tmp_path / "out")) == files(wheel)


def test_source_archive_holds_the_repository(sdist: Path, source: Path) -> None:
    with tarfile.open(sdist) as archive:
        held = {
            name.partition("/")[2]
            for name in archive.getnames()
            if not archive.getmember(name).isdir()
        }
    linked = {f"conf/scheme/{path.name}" for path in (source / "conf/scheme").iterdir()}
    tracked = {str(path) for path in tracked_files(".")} - {"conf/scheme"}
    made = {name for name in held if name.startswith("espnet_quant4.egg-info/")}
    assert held - made == tracked | linked | {"PKG-INFO", "tests/__init__.py"}
    assert not held & set(LEFT_BEHIND)


def test_editable_wheel_has_the_pth(source: Path, tmp_path: Path) -> None:
    built = build("editable", source, tmp_path)
    assert PTH.name in files(built)
    with zipfile.ZipFile(built) as archive:
        assert archive.read(PTH.name) == PTH.read_bytes()
        # The path entry has to be read first, and site reads .pth files in order.
        (path_entry,) = [n for n in archive.namelist() if n.endswith(".pth") and n != PTH.name]
        assert path_entry < PTH.name
        assert archive.read(path_entry).decode().strip() == str(source)


def test_requirements_leave_torch_and_espnet_alone(metadata: Message) -> None:
    always = [r for r in metadata.get_all("Requires-Dist", []) if "extra ==" not in r]
    assert sorted(always) == [
        "PyYAML",
        "editdistance",
        "numpy",
        "safetensors",
        "scipy>=1.12",
        "tqdm",
    ]


def test_no_extra_but_espnet_names_torch_or_espnet(metadata: Message) -> None:
    extras = [r for r in metadata.get_all("Requires-Dist", []) if "extra ==" in r]
    named = [r.split(";") for r in extras if r.startswith(("torch", "espnet"))]
    assert [name.strip() for name, _ in named] == ["espnet"]
    assert "espnet" in named[0][1]


def test_metadata(metadata: Message) -> None:
    assert metadata["Name"].replace("-", "_") == "espnet_quant4"
    assert metadata["Version"] == espnet_quant4.__version__
    assert metadata["Requires-Python"] == ">=3.10"
    assert {"k2", "report", "test"} <= set(metadata.get_all("Provides-Extra", []))
    assert "Apache-2.0" in (metadata["License-Expression"] or metadata["License"])
    classifiers = set(metadata.get_all("Classifier"))
    assert "License :: OSI Approved :: Apache Software License" in classifiers
    for minor in (10, 11, 12, 13):
        assert f"Programming Language :: Python :: 3.{minor}" in classifiers
    assert metadata["Author"] == "espnet_quant4 developers"
    assert metadata.get_all("Project-URL") == ["Paper, https://arxiv.org/abs/2108.12074"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "editable", "sdist"])
@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_install_and_uninstall(
    installer: str, kind: str, source: Path, sdist: Path, tmp_path: Path
) -> None:
    python = Interpreter(tmp_path / "venv", plugin=False, outer=True, pip=installer == "pip")
    if installer == "pip":
        pip = [str(python.executable), "-m", "pip"]
        # pip sees the outer environment, ESPnet included, and has to find every requirement there.
        options, target, yes = ["--no-index", "--no-build-isolation"], [], ["--yes"]
    else:
        # Not from PATH: it was installed beside this interpreter, which need not stand there.
        pip = [sys.executable, "-m", "uv", "pip"]
        # uv looks at the inner environment only, which has no numpy.
        options = ["--offline", "--no-build-isolation", "--no-deps"]
        target, yes = ["--python", str(python.executable)], []

    def call(*arguments: str) -> str:
        # Not in the repository: its folder would be on the module path.
        done = subprocess.run(
            [*pip, *arguments], capture_output=True, text=True, cwd=python.site_packages
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def versions() -> dict[str, str]:
        listed = json.loads(call("list", "--format", "json", *target))
        names = {p["name"].replace("-", "_"): p["version"] for p in listed}
        return {name: version for name, version in names.items() if name != "espnet_quant4"}

    before = versions()
    what = {"folder": [str(source)], "editable": ["-e", str(source)], "sdist": [str(sdist)]}[kind]
    call("install", *target, *options, *what)
    pth = python.site_packages / PTH.name
    assert pth.read_bytes() == PTH.read_bytes()
    assert versions() == before
    # Not imported by the code: the .pth does it.
    code = "import sys, espnet2; print(sys.modules['espnet_quant4'].__file__)"
    where = Path(python.lines(code)[0])
    assert where.is_relative_to(source if kind == "editable" else python.site_packages)

    call("uninstall", *target, *yes, "espnet_quant4")
    assert not pth.exists()
    assert versions() == before
