"""What setup.cfg cannot say: install `espnet_quant4.pth` into site-packages.

The .pth file makes every Python of the environment import the plugin's hook (see
`espnet_quant4/hook.py`).  setuptools has no option for a file that lies beside the packages:
`build_py` puts it into wheels, `editable_wheel` adds it to the wheel of an editable install.  In
both cases it is an ordinary entry of the wheel's RECORD, so uninstalling removes it.
"""

import base64
import hashlib
import os
import zipfile
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

PTH = "espnet_quant4.pth"


class BuildPyWithPth(build_py):
    """Builds the packages, and the .pth file beside them."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            self.copy_file(PTH, os.path.join(self.build_lib, PTH))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), os.path.join(self.build_lib, PTH)]

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


setup(cmdclass={"build_py": BuildPyWithPth, "editable_wheel": EditableWheelWithPth})
