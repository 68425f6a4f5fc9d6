"""From lexicon to search: a change makes anew what depends on it, and nothing else."""

import os
import shutil

import pytest
from hybrid.tone_corpus import write_corpus

from espnet_quant4.bin import (
    hybrid_decode,
    hybrid_gmm,
    hybrid_graph,
    hybrid_lang,
    hybrid_lm,
    hybrid_prior,
)
from espnet_quant4.bin.command import run_command

UTTERANCES = 8
TRIPHONE = {"triphone", "align", "scores", "graph", "prior", "decode"}
GMM = TRIPHONE | {"mono"}
OUTPUTS = (
    *("lang/phones.txt", "lm.arpa", "mono/final.mdl", "tri/final.mdl", "tri/tree", "tri/ali.1.gz"),
    *("ali/pdf_ids", "log_prior", "graph/HCLG.fst", "scores/scores.ark", "decode/text"),
)


def steps(folder, change=()):
    """Every stage with its command, options and output; ``change``: stage, option and value."""
    data, lang, lm = folder / "data", folder / "lang", folder / "lm.arpa"
    mono, tri, ali = folder / "mono", folder / "tri", folder / "ali"
    spoken = ["--data", data, "--lang", lang]
    few = ["--iterations", "2", "--gaussians", "30"]
    table = {
        "lang": (hybrid_lang, ["--lexicon", folder / "lexicon.txt", "--text", data / "text"], lang),
        "lm": (hybrid_lm, ["--lang", lang, "--text", data / "text"], lm),
        "mono": (hybrid_gmm, ["mono", *spoken, *few], mono),
        "triphone": (
            hybrid_gmm,
            ["triphone", *spoken, *few, "--alignments", mono, "--leaves", "20"],
            tri,
        ),
        "graph": (hybrid_graph, ["--lang", lang, "--lm", lm, "--gmm", tri], folder / "graph"),
        "align": (hybrid_gmm, ["align", *spoken, "--model", tri], ali),
        "prior": (hybrid_prior, ["--pdf_counts", ali / "pdf_counts"], folder / "log_prior"),
        "scores": (hybrid_gmm, ["scores", "--data", data, "--model", tri], folder / "scores"),
        "decode": (
            hybrid_decode,
            ["--graph", folder / "graph", "--scores", folder / "scores/scores.scp"],
            folder / "decode",
        ),
    }
    for name, (command, options, output) in table.items():
        more = change[1:] if change and change[0] == name else []
        yield name, command, [*options, "--output", output, *more], output


def run(folder, change=()):
    """Run all stages; returns those that made something."""
    made = set()
    for name, command, options, output in steps(folder, change):
        record = output / "made_from.json"
        if not output.suffix and name != "prior":
            before = record.stat().st_mtime_ns if record.exists() else None
        else:
            record = output.with_name(f"{output.name}.made_from.json")
            before = record.stat().st_mtime_ns if record.exists() else None
        assert run_command(name, command.main, [str(option) for option in options]) == 0
        if record.stat().st_mtime_ns != before:
            made.add(name)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chain")
    write_corpus(folder, UTTERANCES)
    assert run(folder) == {"lang", "lm", *GMM}
    return folder


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_nothing_is_made_anew_where_nothing_changed(folder):
    for path in folder.rglob("*"):
        # The recordings' times say whether they changed.
        if path.is_file() and path.suffix not in (".wav", ".ark"):
            os.utime(path)
    assert run(folder) == set()


def assert_as_from_scratch(folder, fresh, change=()):
    """Check that all outputs are those of a run that started with nothing."""
    (fresh / "data").mkdir(parents=True)
    shutil.copy(folder / "lexicon.txt", fresh)
    for name in ("wav.scp", "text", "utt2spk"):
        shutil.copy(folder / "data" / name, fresh / "data")
    run(fresh, change)
    for name in OUTPUTS:
        assert (folder / name).read_bytes() == (fresh / name).read_bytes(), name


def test_a_renamed_phone_makes_all_but_the_language_model_anew(folder, tmp_path):
    # The last one in the order of names now.
    edit(folder / "lexicon.txt", "IY", "ZZ")
    assert run(folder) == {"lang", *GMM}
    assert "ZZ" in (folder / "lang/phones.txt").read_text()
    assert_as_from_scratch(folder, tmp_path / "fresh")
    assert run(folder) == set()
    edit(folder / "lexicon.txt", "ZZ", "IY")
    assert run(folder) == {"lang", *GMM}


def test_another_transcript_makes_all_anew(folder, tmp_path):
    line = (folder / "data/text").read_text().splitlines()[0]
    edit(folder / "data/text", line, f"{line} AH")
    assert run(folder) == {"lang", "lm", *GMM}
    assert_as_from_scratch(folder, tmp_path / "fresh")
    assert run(folder) == set()


# What comes out equal after all, such as an alignment, makes nothing anew that was made of it.
@pytest.mark.parametrize(
    ("change", "least", "most"),
    [
        (("mono", "--gaussians", "60"), {"mono", "triphone"}, GMM),
        (("mono", "--seed", "3"), {"mono", "triphone"}, GMM),
        (("triphone", "--leaves", "40"), {"triphone"}, TRIPHONE),
        (("triphone", "--gaussians", "60"), {"triphone", "align", "scores", "decode"}, TRIPHONE),
        (("align", "--beam", "9"), {"align"}, {"align"}),
        (("lm", "--order", "1"), {"lm", "graph", "decode"}, {"lm", "graph", "decode"}),
        (("graph", "--self_loop_scale", "0.2"), {"graph", "decode"}, {"graph", "decode"}),
        (("decode", "--beam", "12"), {"decode"}, {"decode"}),
    ],
)
def test_an_option_makes_its_stage_anew_and_what_depends_on_it(
    folder, tmp_path, change, least, most
):
    run(folder)
    assert least <= run(folder, change) <= most
    assert_as_from_scratch(folder, tmp_path / "fresh", change)
    assert run(folder, change) == set()


def test_another_recording_makes_the_gmm_anew_and_other_speakers_too(folder):
    run(folder)
    assert run(folder) == set()
    edit(folder / "data/utt2spk", "s1\n", "s2\n")
    assert run(folder) == GMM
    os.utime(next((folder / "data/audio").iterdir()))
    assert {"mono", "triphone", "align", "scores"} <= run(folder)
    assert run(folder) == set()


def test_an_interrupted_stage_is_taken_by_none_and_made_anew(folder, monkeypatch, capsys):
    run(folder)
    edit(folder / "lang/topo", "0.75", "0.7500")

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(hybrid_gmm, "train_monophone", interrupted)
    options = {name: options for name, _, options, _ in steps(folder)}
    mono, triphone = ([str(o) for o in options[name]] for name in ("mono", "triphone"))
    assert run_command("hybrid-gmm", hybrid_gmm.main, mono) == 130
    assert run_command("hybrid-gmm", hybrid_gmm.main, triphone) == 1
    assert "mono: hybrid-gmm mono was interrupted while it wrote" in capsys.readouterr().err
    monkeypatch.undo()
    assert "mono" in run(folder)


def test_a_model_of_unknown_origin_is_not_written_over(folder, tmp_path, capsys):
    (tmp_path / "final.mdl").write_text("a user's own")
    options = {name: options for name, _, options, _ in steps(folder)}["mono"]
    arguments = [str(option) for option in options] + ["--output", str(tmp_path)]
    assert run_command("hybrid-gmm", hybrid_gmm.main, arguments) == 1
    assert f"Remove or move {tmp_path}" in capsys.readouterr().err
    assert (tmp_path / "final.mdl").read_text() == "a user's own"
