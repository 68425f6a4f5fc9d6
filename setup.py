"""What setup.cfg cannot say: build the C++ library, install `espnet_quant4.pth`.

The library (`espnet_quant4/kernels/csrc`) has a C interface and knows neither PyTorch nor Python, so
a wheel with it fits every Python of a platform: its tag is `py3-none-PLATFORM`.  Without a compiler
the package installs all the same, and 4-bit inference is emulated.

The .pth file makes every Python of the environment import the plugin's hook (see
`espnet_quant4/hook.py`).  setuptools has no option for a file that lies beside the packages:
`build_py` puts it into wheels, `editable_wheel` adds it to the wheel of an editable install.  In
both cases it is an ordinary entry of the wheel's RECORD, so uninstalling removes it.
"""

import base64
import hashlib
import importlib.util
import os
import sys
import zipfile
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # before setuptools 70.1
    from wheel.bdist_wheel import bdist_wheel

PTH = "espnet_quant4.pth"
KERNELS = Path("espnet_quant4", "kernels")


def build_library(folder: Path) -> Path | None:
    """Build the C++ library into `folder`; None, with a message, where that cannot be done."""
    # By path: importing the package would need what it depends on.
    spec = importlib.util.spec_from_file_location("build_kernels", KERNELS / "build.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    try:
        return module.build(folder / module.LIBRARY)
    except module.BuildError as error:
        print(
            f"espnet_quant4: the INT4 kernels are not built, so 4-bit inference is emulated. {error}",
            file=sys.stderr,
        )
        return None


class BuildPyWithPth(build_py):
    """Builds the packages, and the .pth file beside them."""

    def run(self) -> None:
        super().run()
        self.library = None
        if self.editable_mode:
            build_library(KERNELS)
            return
        self.copy_file(PTH, os.path.join(self.build_lib, PTH))
        self.library = build_library(Path(self.build_lib, KERNELS))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        outputs = [*super().get_outputs(include_bytecode), os.path.join(self.build_lib, PTH)]
        library = getattr(self, "library", None)
        return outputs if library is None else [*outputs, str(library)]

    def get_output_mapping(self) -> dict[str, str]:
        return {**super().get_output_mapping(), os.path.join(self.build_lib, PTH): PTH}

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), PTH]


class EditableWheelWithPth(editable_wheel):
    """Builds the wheel of `pip install -e`, then adds the .pth file to it.

    The finished wheel is rewritten because setuptools keeps what it puts into it private.
    """

    def run(self) -> None:
        before = set(Path(self.dist_dir).glob("*.whl"))
        super().run()
        for wheel in set(Path(self.dist_dir).glob("*.whl")) - before:
            add_to_wheel(wheel, PTH, Path(PTH).read_bytes())


class BdistWheelOfPlatform(bdist_wheel):
    """Builds a wheel for the platform if it holds the C++ library, and for any if not."""

    def run(self) -> None:
        # The tag is asked for before anything is built, so build first.
        self.run_command("build_py")
        if self.get_finalized_command("build_py").library is not None:
            self.root_is_pure = False
            self.distribution.has_ext_modules = lambda: True
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        _, _, platform = super().get_tag()
        return "py3", "none", platform


def add_to_wheel(wheel: Path, name: str, data: bytes) -> None:
    """Add the file `name` to the top of `wheel` and to its RECORD."""
    with zipfile.ZipFile(wheel) as archive:
        files = [(info, archive.read(info)) for info in archive.infolist()]
    if any(info.filename == name for info, _ in files):
        return
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
        for info, content in files:
            if info.filename.endswith(".dist-info/RECORD"):
                content += f"{name},sha256={digest},{len(data)}\n".encode()
            archive.writestr(info, content)


setup(
    cmdclass={
        "build_py": BuildPyWithPth,
        "editable_wheel": EditableWheelWithPth,
        "bdist_wheel": BdistWheelOfPlatform,
    }
)
