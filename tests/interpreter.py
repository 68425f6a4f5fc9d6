"""Python interpreters for tests of what happens at interpreter start.

A throw-away virtual environment runs `espnet_quant4.pth` as an installed one would, whether or not
the package is installed in the environment that runs the tests.
"""

import os
import site
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

import espnet_quant4
from espnet_quant4.hook import SWITCH

REPOSITORY = Path(__file__).resolve().parents[1]
PTH = REPOSITORY / "espnet_quant4.pth"


class Interpreter:
    """A virtual environment in `folder`, and a way to run code in it.

    Args:
        folder: where to put it.
        path: folders that are on its module path.
        plugin: whether `espnet_quant4.pth` lies in its site-packages.
        outer: whether it sees the packages of the environment that runs the tests.
        pip: whether it has a pip of its own, which takes seconds.
    """

    def __init__(
        self,
        folder: Path,
        path: Sequence[Path] = (),
        plugin: bool = True,
        outer: bool = False,
        pip: bool = False,
    ) -> None:
        venv.create(folder, symlinks=True, with_pip=pip)
        self.executable = folder / "bin" / "python"
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        self.site_packages = folder / "lib" / version / "site-packages"
        lines = [str(entry) for entry in path]
        if outer:
            lines += [f"import site; site.addsitedir({entry!r})" for entry in outer_packages()]
        # The name sorts before espnet_quant4.pth, as that of an editable install does.
        (self.site_packages / "_path.pth").write_text("\n".join(lines) + "\n")
        if plugin:
            (self.site_packages / PTH.name).write_bytes(PTH.read_bytes())

    def run(
        self, *arguments: str, check: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run with `arguments`; environment variables are those of the tests plus `environment`."""
        kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONWARNINGS")}
        kept.pop(SWITCH, None)
        return subprocess.run(
            [str(self.executable), *arguments],
            check=check,
            capture_output=True,
            text=True,
            env={**kept, **environment},
            cwd=self.site_packages,  # not the repository: `python -c` has its folder on the path
            timeout=300,
        )

    def lines(self, code: str, **environment: str) -> list[str]:
        """Run `code` and return the lines that it prints; anything on stderr is an error."""
        done = self.run("-c", code, check=False, **environment)
        assert done.returncode == 0 and not done.stderr, done.stderr
        return done.stdout.splitlines()


def package_folder() -> Path:
    """The folder that holds the package which the tests import."""
    return Path(espnet_quant4.__file__).parents[1]


def outer_packages() -> list[str]:
    """The site-packages folders of the interpreter that runs the tests."""
    return [entry for entry in site.getsitepackages() if Path(entry).is_dir()]
