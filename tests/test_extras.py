"""How to install what a part of the package needs; no index has the package itself."""

import configparser
from importlib import metadata

import pytest
from interpreter import REPOSITORY
from tracked import tracked_files

from espnet_quant4.extras import install_command

SETUP = configparser.ConfigParser()
SETUP.read(REPOSITORY / "setup.cfg", encoding="utf-8")
EXTRAS = {name: value.split() for name, value in SETUP["options.extras_require"].items()}


def listed():
    return [
        *("numpy", "scipy>=1.12"),
        *(f'{package}; extra == "{extra}"' for extra, names in EXTRAS.items() for package in names),
    ]


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_command_names_what_the_extra_has(extra, monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda _: listed())
    expected = " ".join(f'"{package}"' for package in EXTRAS[extra])
    assert install_command(extra) == f"pip install {expected}"


@pytest.mark.parametrize("requires", [None, ["numpy"]])
def test_without_metadata_it_names_a_checkout(requires, monkeypatch):
    def find(_):
        if requires is None:
            raise metadata.PackageNotFoundError
        return requires

    monkeypatch.setattr(metadata, "requires", find)
    assert install_command("swbd") == 'pip install ".[swbd]" (in a checkout of espnet_quant4)'


def test_what_espnets_trainer_wants_by_default_has_an_extra():
    assert EXTRAS["train"] == ["tensorboard"]


def test_nothing_says_to_get_the_package_from_an_index():
    texts = [*tracked_files("docs"), *tracked_files("egs"), *tracked_files("espnet_quant4")]
    for path in [*texts, *tracked_files("README.md"), *tracked_files("CONTRIBUTING.md")]:
        if path.suffix in (".md", ".py", ".sh"):
            text = (REPOSITORY / path).read_text(encoding="utf-8")
            for line in text.splitlines():
                assert "espnet_quant4[" not in line, f"{path}: {line}"
                assert "pip install espnet_quant4" not in line, f"{path}: {line}"
                assert "--upgrade espnet_quant4" not in line, f"{path}: {line}"
