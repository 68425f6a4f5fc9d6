"""What a recipe needs: found, missing, and where to get it."""

import pytest

from espnet_quant4.bin.check import main


def test_all_there(tmp_path, capsys):
    status = main(
        [
            *("--programs", "bash", "--packages", "numpy", "--folders", f"CORPUS={tmp_path}"),
            *("--room", f"{tmp_path / 'not/yet/there'}=0.000001"),
        ]
    )
    shown = capsys.readouterr().out
    assert status == 0 and "nothing is missing" in shown
    assert "MISSING" not in shown and shown.count("\nok ") >= 9


def test_each_missing_thing_with_its_source(tmp_path, capsys):
    status = main(
        [
            *("--programs", "no_such_program", "--programs", "bash"),
            *("--packages", "no_such_package", "--folders", "SWBD=", f"OTHER={tmp_path / 'no'}"),
            *("--room", f"{tmp_path}=1000000000"),
        ]
    )
    shown = capsys.readouterr().out
    assert status == 1 and "missing: 5 of 12" in shown
    assert "program no_such_program: install it" in shown
    assert "package no_such_package: pip install no_such_package" in shown
    assert "folder SWBD: enter it in db.sh, or export SWBD" in shown
    assert f"folder OTHER: no folder {tmp_path / 'no'}" in shown
    assert "GB are free in" in shown and "another disk" in shown


def test_a_size_that_is_no_number_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--room", "exp=much"])
    assert "FOLDER=GIGABYTES" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--room", "exp=-1"], "--room exp=-1: valid is FOLDER=GIGABYTES"),
        (["--room", "exp=nan"], "FOLDER=GIGABYTES"),
        (["--room", "=5"], "FOLDER=GIGABYTES"),
        (["--folders", "/corpora"], "--folders /corpora: valid is NAME=PATH"),
    ],
)
def test_what_has_another_form_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["no_such_package.inside", "numpy.no_such_module", "", "a b"])
def test_a_package_whose_name_is_odd_is_missing(name, capsys):
    assert main(["--packages", name]) == 1
    assert "MISSING  package" in capsys.readouterr().out
