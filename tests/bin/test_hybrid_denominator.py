"""The command that estimates a denominator graph."""

import numpy as np
import pytest

from espnet_quant4.bin.command import run_command
from espnet_quant4.bin.hybrid_denominator import main
from espnet_quant4.hybrid.lfmmi import build_lfmmi_loss
from espnet_quant4.hybrid.lfmmi.denominator import estimate_denominator
from espnet_quant4.hybrid.lfmmi.fst_text import read_fst

IDS = {"utt1": [0, 0, 1, 2, 2], "utt2": [1, 1, 0, 0]}


@pytest.fixture
def run(tmp_path):
    (tmp_path / "pdf_ids").write_text(
        "".join(f"{u} {' '.join(map(str, x))}\n" for u, x in IDS.items())
    )
    (tmp_path / "num_pdfs").write_text("3\n")

    def command(*options, num_pdfs=str(tmp_path / "num_pdfs")):
        arguments = ["--pdf_ids", str(tmp_path / "pdf_ids"), "--num_pdfs", num_pdfs]
        return run_command(
            "hybrid-denominator",
            main,
            [*arguments, "--output", str(tmp_path / "exp" / "den.fst"), *options],
        )

    command.folder = tmp_path
    return command


@pytest.mark.parametrize(("order", "subsample"), [(2, 1), (3, 1), (2, 2)])
def test_it_writes_what_a_loss_is_built_of(run, capsys, order, subsample):
    assert run("--order", str(order), "--subsample", str(subsample)) == 0
    alignments = [(u, np.array(x[::subsample])) for u, x in IDS.items()]
    wanted = estimate_denominator(alignments, 3, order)
    written = read_fst(run.folder / "exp" / "den.fst")
    assert np.array_equal(written.ilabel, wanted.ilabel)
    np.testing.assert_allclose(written.weight, wanted.weight, rtol=1e-6)
    assert f"{wanted.num_states} states" in capsys.readouterr().out
    assert build_lfmmi_loss(str(run.folder / "exp" / "den.fst")).num_pdfs == 3


def test_it_stays_where_nothing_changed(run, capsys):
    assert run() == run() == 0
    assert "there already" in capsys.readouterr().out
    (run.folder / "pdf_ids").write_text("utt1 0 2 1\n")
    assert run() == 0
    assert "pdf_ids changed" in capsys.readouterr().out


def test_the_number_of_pdfs_may_be_given(run):
    assert run(num_pdfs="5") == 0
    assert read_fst(run.folder / "exp" / "den.fst").ilabel.max() == 5


@pytest.mark.parametrize(
    ("options", "num_pdfs", "text", "message"),
    [
        ([], "2", None, "utterance utt1: pdf id 2, its number 4; valid are 0 to 1"),
        ([], "0", None, "--num_pdfs 0: '0' is no number above 0"),
        ([], "missing_file", None, "missing_file"),
        (["--order", "9"], "3", None, "order: 9; valid are 1, 2, 3, 4"),
        (["--subsample", "0"], "3", None, "--subsample 0: valid are 1 and above"),
        ([], "3", "utt1 0 x\n", "pdf_ids:1: utterance 'utt1': "),
        ([], "3", "utt1\n", "utterance utt1: no pdf ids"),
        ([], "3", "", "no utterance"),
    ],
)
def test_bad_input(run, capsys, options, num_pdfs, text, message):
    if text is not None:
        (run.folder / "pdf_ids").write_text(text)
    assert run(*options, num_pdfs=num_pdfs) == 1
    assert message in capsys.readouterr().err
    assert not (run.folder / "exp" / "den.fst").exists()
