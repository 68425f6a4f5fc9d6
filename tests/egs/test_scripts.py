"""The shell side: syntax, options, and how setting up finds an interpreter."""

import os
import shutil
import stat
import subprocess
import sys

import pytest
from egs.espnet_checkout import CHECKOUT, needs_checkout
from egs.recipes import EGS, REPOSITORY

RECIPES = sorted(path.parent for path in EGS.glob("*/*/run.sh"))
SCRIPTS = sorted([*EGS.rglob("*.sh"), *(REPOSITORY / "tools").glob("*.sh"), REPOSITORY / ".ci/run"])


def shell(*command, **environment):
    return subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_scripts_parse(script):
    done = shell("bash", "-n", script)
    assert done.returncode == 0, done.stderr


# By the driver, which is what the recipe's folder is named for.
CONFIGURATIONS = {
    "asr1": ("train_asr_ctc", "train_asr_fp32", "train_asr_qat", "decode_asr"),
    "hybrid1": ("train_hybrid_fp32", "train_hybrid_qat", "decode_hybrid"),
}
DRIVERS = {name: EGS / "an4" / name / "run.sh" for name in CONFIGURATIONS}


def test_every_recipe_has_the_same_files():
    assert {recipe.name for recipe in RECIPES} == set(CONFIGURATIONS)
    for recipe in RECIPES:
        for name in ("run.sh", "path.sh", "cmd.sh", "local/data.sh"):
            assert (recipe / name).is_file(), recipe / name
        for name in ("run.sh", "local/data.sh"):
            assert os.access(recipe / name, os.X_OK), recipe / name
        for name in CONFIGURATIONS[recipe.name]:
            assert (recipe / "conf" / f"{name}.yaml").is_file(), recipe / name


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--no_such_option", "1"],
            "unknown option --no_such_option; the options stand at the top",
        ),
        (["stage", "1"], "unknown option stage"),
        (["--nj"], "--nj wants a value"),
        (["--PATH", "x"], "unknown option --PATH"),
    ],
)
def test_wrong_options_are_refused(driver, arguments, message):
    done = shell(DRIVERS[driver], *arguments)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize(
    ("driver", "arguments", "message"),
    [
        ("asr1", ["--from_scratch", "maybe"], "--from_scratch maybe; valid: true, false"),
        ("hybrid1", ["--criterion", "mpe"], "--criterion mpe; valid: ce, lfmmi"),
        ("hybrid1", ["--realign=yes"], "--realign yes; valid: true, false"),
        ("hybrid1", ["--kaldi_ali", "ali"], "--graph DIR"),
        ("hybrid1", ["--schemes", "naive"], "every system starts from fp32; add it"),
    ],
)
def test_wrong_values_are_refused(driver, arguments, message):
    done = shell(DRIVERS[driver], *arguments)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize("driver", DRIVERS)
def test_help_lists_the_stages(driver):
    done = shell(DRIVERS[driver], "--help")
    assert done.returncode == 0
    for word in ("statistics", "training", "decoding", "scoring"):
        assert word in done.stdout


def fake_interpreter(path, version, works=True):
    """A program that answers as an interpreter of that version would when asked for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {version}\n" if works else "#!/bin/sh\nexit 127\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def find_python(tmp_path, **environment):
    """Run the search alone, with nothing on PATH but what the script itself needs."""
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    for name in ["bash", "dirname", "timeout", "sort", "ls", "cat", "sha256sum", "cut", "env"]:
        link = tools / name
        if not link.exists():
            link.symlink_to(shell("bash", "-c", f"type -P {name}").stdout.strip())
    return subprocess.run(
        [str(tools / "bash"), str(REPOSITORY / "tools" / "setup_venv.sh"), str(tmp_path / "venv")],
        capture_output=True,
        text=True,
        env={
            "PATH": f"{tmp_path / 'bin'}:{tools}",
            "HOME": str(tmp_path),
            "QUANT4_DRY_RUN": "1",
            **environment,
        },
        timeout=60,
    )


def test_an_interpreter_that_only_pyenv_has_is_found(tmp_path):
    # The shim is on PATH, but answers only where a version is selected.
    fake_interpreter(tmp_path / "bin" / "python3.12", "3.12", works=False)
    real = fake_interpreter(tmp_path / ".pyenv/versions/3.12.9/bin/python3.12", "3.12")
    done = find_python(tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"Python 3.12 ({real}) with ESPnet 202611" in done.stdout


def test_the_newest_patch_release_under_pyenv_is_taken(tmp_path):
    for patch in (2, 10, 9):
        fake_interpreter(tmp_path / f".pyenv/versions/3.12.{patch}/bin/python3.12", "3.12")
    assert "versions/3.12.10/bin" in find_python(tmp_path).stdout


def test_the_line_before_can_be_asked_for(tmp_path):
    fake_interpreter(tmp_path / "bin" / "python3.12", "3.12")
    fake_interpreter(tmp_path / "bin" / "python3.11", "3.11")
    done = find_python(tmp_path, QUANT4_ESPNET="202511")
    assert f"Python 3.11 ({tmp_path / 'bin' / 'python3.11'}) with ESPnet 202511" in done.stdout


def test_an_interpreter_of_another_version_is_not_taken(tmp_path):
    fake_interpreter(tmp_path / "python-2", "2.7")
    done = find_python(tmp_path, QUANT4_PYTHON=str(tmp_path / "python-2"))
    assert done.returncode == 1
    assert "No suitable Python" in done.stderr and "3.12 or 3.13" in done.stderr


def test_what_runs_these_tests_would_do(tmp_path):
    version = "{}.{}".format(*sys.version_info)
    espnet = "202611" if sys.version_info >= (3, 12) else "202511"
    done = find_python(tmp_path, QUANT4_PYTHON=sys.executable)
    assert f"Python {version} ({sys.executable}) with ESPnet {espnet}" in done.stdout


@needs_checkout
def test_setup_accepts_what_it_would_make_and_nothing_else(tmp_path):
    setup, recipe = EGS / "common/setup_espnet.sh", tmp_path / "recipe"
    recipe.mkdir()
    template = (CHECKOUT / "egs2/TEMPLATE/asr1").resolve()

    def run():
        return shell(setup, recipe, ESPNET_ROOT=str(CHECKOUT))

    for _ in range(2):
        done = run()
        assert done.returncode == 0, done.stderr
        assert (recipe / "asr.sh").resolve() == template / "asr.sh"
        assert (recipe / "utils").resolve() == (template / "utils").resolve()
    # Of a recipe whose links were followed when it was copied.
    copy = tmp_path / "copy"
    shutil.copytree(recipe, copy)
    assert not (copy / "asr.sh").is_symlink()
    assert shell(setup, copy, ESPNET_ROOT=str(CHECKOUT)).returncode == 0
    (copy / "asr.sh").write_text("mine")
    done = shell(setup, copy, ESPNET_ROOT=str(CHECKOUT))
    assert done.returncode == 1 and f"{copy}/asr.sh is there, no link, and differs" in done.stderr
    # Links to another checkout are turned to this one; one's own options stay.
    other = tmp_path / "other/egs2/TEMPLATE/asr1/conf"
    other.mkdir(parents=True)
    for name, own in (("queue.conf", False), ("slurm.conf", True)):
        (recipe / "conf" / name).unlink(missing_ok=True)
        target = tmp_path / name if own else other / name
        target.write_text("")
        (recipe / "conf" / name).symlink_to(target)
    assert run().returncode == 0
    assert (recipe / "conf/queue.conf").readlink() == template / "conf/queue.conf"
    assert (recipe / "conf/slurm.conf").readlink() == tmp_path / "slurm.conf"
