"""The command on look-alike corpora, from disks to data folders."""

import json
import re
import sys

import pytest
import soundfile
from corpora.switchboard_disks import Eval2000, Fisher, Switchboard, write

from espnet_quant4.bin.main import main
from espnet_quant4.bin.score_hub5 import main as score_hub5
from espnet_quant4.corpora.switchboard import hub5
from espnet_quant4.corpora.switchboard.normalize import NOTHING_SAID
from espnet_quant4.extras import install_command
from espnet_quant4.report.hub5 import find_hubscr


@pytest.fixture
def corpora(tmp_path):
    """A folder of LDC folders, as SWBD of ESPnet's db.sh names it."""
    folder = tmp_path / "corpora"
    switchboard = Switchboard(folder)
    for call in (2001, 2005, 2006, 2008):
        switchboard.add(call, ["yeah"] * 4, ["[laughter-yeah] IBM", "i[t]- [noise]", "[silence]"])
    Eval2000(folder)
    Fisher(folder).add("fe_03_00001", "0.50 1.50 A: hello [laugh]", "1.00 2.00 B: hi")
    return folder


def run(corpora, data, *options):
    command = ["--corpora", str(corpora), "--data", str(data), "--dev_utterances", "5"]
    return main(["prepare-switchboard", *command, "--max_duplicates", "3", *options])


def keys(path):
    return [line.split()[0] for line in path.read_text().splitlines()]


def test_all_parts(corpora, tmp_path, capsys):
    data = tmp_path / "data"
    fisher = str(corpora / "LDC2004S13"), str(corpora / "LDC2004T19")
    assert run(corpora, data, "--fisher", *fisher) == 0
    parts = ("train_nodup", "train_dev", "eval2000", "train_fisher")
    for part in parts:
        utterances = keys(data / part / "text")
        assert utterances == keys(data / part / "utt2spk") == keys(data / part / "segments")
        assert utterances == sorted(utterances)
        assert "|" not in (data / part / "wav.scp").read_text()
        for line in (data / part / "wav.scp").read_text().splitlines():
            assert soundfile.info(line.split()[1]).channels == 1
    dev, train = (set(keys(data / part / "spk2utt")) for part in ("train_dev", "train_nodup"))
    assert dev == {"sw02001-A", "sw02001-B"}
    assert train == {f"sw0{call}-{side}" for call in (2005, 2006, 2008) for side in "AB"}
    texts = [line.split(" ", 1)[1] for line in (data / "train_nodup" / "text").open()]
    assert texts.count("yeah\n") == 3
    assert set(texts) == {"yeah\n", "yeah i b m\n", "i- [noise]\n"}
    assert (data / "eval2000" / "stm").read_text().count("sw_4390") == 4
    assert (data / "eval2000" / "glm").exists()
    assert "i- ih\n" in (data / "local" / "dict" / "lexicon.txt").read_text()
    assert keys(data / "nlsyms.txt") == ["[laughter]", "[noise]", "[vocalized-noise]"]
    log = capsys.readouterr().out
    assert "swbd: 9 utterances left out of training: over 3 others say the same: sw02005-A" in log
    assert "swbd: 4 utterances left out: no word is left after normalization: sw02001-B" in log
    assert "swbd: each side of a call counts as a speaker" in log
    assert f"{data / 'train_nodup'}: 9 utterances, 0.00 h, 6 speakers" in log
    table = (data / "local" / "left_out.tsv").read_text().splitlines()
    assert table[0] == "corpus\trule\tname"
    assert sum("over 3 others" in row for row in table) == 9


def test_a_file_for_each_utterance_and_names_of_parts(corpora, tmp_path):
    data = tmp_path / "data"
    names = "--train_set", "train", "--dev_set", "dev"
    options = "--segments", "false", "--noises", "remove", "--audio", str(tmp_path / "wav")
    assert run(corpora, data, *names, *options) == 0
    assert keys(data / "dev" / "wav.scp") == keys(data / "dev" / "text")
    assert not (data / "dev" / "segments").exists()
    assert keys(data / "eval2000" / "call_segments") == keys(data / "eval2000" / "text")
    assert len(list((tmp_path / "wav").glob("sw02001-A_*.wav"))) == 4
    assert (data / "nlsyms.txt").read_text() == ""
    assert "[noise]" not in (data / "train" / "text").read_text()


def test_dry_run_reads_all_and_writes_nothing(corpora, tmp_path, capsys):
    data = tmp_path / "data"
    assert run(corpora, data, "--dry_run", "true") == 0
    assert not data.exists()
    log = capsys.readouterr().out
    assert "9 utterances left out of training: over 3 others" in log
    assert f"would write 0.0 GB of audio to {data / 'local' / 'audio'}" in log
    (corpora / "LDC2002T43" / "reference" / "en20000405_hub5.glm").unlink()
    assert run(corpora, data, "--dry_run", "true") == 1


def test_second_run_gives_the_same(corpora, tmp_path):
    data = tmp_path / "data"
    contents = []
    for _ in range(2):
        assert run(corpora, data) == 0
        contents.append({p: p.read_bytes() for p in data.rglob("*") if p.is_file()})
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("LDC97S62", "Switchboard-1 audio: .*LDC97S62 is not there"),
        ("LDC2002S09", "Hub5 2000 audio: .*LDC2002S09 is not there"),
        ("LDC2002T43", "Hub5 2000 transcripts: .*LDC2002T43 is not there"),
        ("swb_ms98_transcriptions", "no swb_ms98_transcriptions in .*--download_transcripts"),
    ],
)
def test_missing_corpora_are_named(corpora, tmp_path, capsys, missing, message):
    (corpora / missing).rename(tmp_path / "elsewhere")
    assert run(corpora, tmp_path / "data") == 1
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--corpora", "--corpora: .*nowhere is not there.* the folder that holds LDC97S62"),
        ("--swbd", "Switchboard-1 audio: .*nowhere is not there.*Name it with --swbd"),
        ("--transcripts", "--transcripts: .*nowhere is not there"),
        ("--eval2000_audio", "Hub5 2000 audio: .*nowhere is not there"),
        ("--eval2000_text", "Hub5 2000 transcripts: .*nowhere is not there"),
        ("--fisher", "--fisher: .*nowhere is not there.*LDC2004S13"),
        ("--rt03", "--rt03: .*nowhere is not there.*LDC2007S10"),
        ("--speakers", "nowhere is not there. The table of speakers is conv_tab.csv"),
    ],
)
def test_a_folder_that_is_given_and_not_there_is_named_before_all_else(
    corpora, tmp_path, capsys, monkeypatch, option, message
):
    monkeypatch.setattr(hub5, "find_files", lambda *_: pytest.fail("a corpus was read"))
    # What else is missing does not matter then.
    (corpora / "swb_ms98_transcriptions").rename(corpora / "elsewhere")
    if option in ("--fisher", "--rt03", "--speakers"):
        (corpora / "elsewhere").rename(corpora / "swb_ms98_transcriptions")
    assert run(corpora, tmp_path / "data", option, str(tmp_path / "nowhere")) == 1
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert said.count("\n") == 1
    (tmp_path / "nowhere").write_text("no folder")
    if option != "--speakers":
        assert run(corpora, tmp_path / "data", option, str(tmp_path / "nowhere")) == 1
        assert "nowhere is a file, not a folder" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--data", "--audio"])
def test_output_below_a_file_is_refused_before_the_work(corpora, tmp_path, capsys, option):
    (tmp_path / "file").write_text("")
    assert run(corpora, tmp_path / "data", option, str(tmp_path / "file" / "below")) == 1
    assert f"{option} {tmp_path}/file/below: {tmp_path}/file is a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [("--nj", "0"), ("--nj", "-1"), ("--dev_utterances", "0"), ("--max_duplicates", "few")],
)
def test_numbers_that_make_no_sense_are_refused(corpora, tmp_path, capsys, option, value):
    with pytest.raises(SystemExit) as stopped:
        run(corpora, tmp_path / "data", option, value)
    assert stopped.value.code == 2
    assert f"{option}: '{value}': valid are whole numbers, 1 and above" in capsys.readouterr().err


def test_two_parts_of_one_name_are_refused(corpora, tmp_path, capsys):
    assert run(corpora, tmp_path / "data", "--train_set", "a", "--dev_set", "a") == 1
    assert "--train_set and --dev_set are both a" in capsys.readouterr().err


def test_without_lhotse_the_command_says_how_to_install_it(corpora, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "lhotse.recipes.switchboard", None)
    assert run(corpora, tmp_path / "data") == 1
    said = capsys.readouterr().err
    assert f"install it with: {install_command('swbd')}" in said and said.count("\n") == 1


def test_options_name_what_they_want(tmp_path, capsys):
    assert main(["prepare-switchboard", "--data", str(tmp_path)]) == 1
    assert "--swbd is not given. Name LDC97S62, or with --corpora" in capsys.readouterr().err


def test_transcripts_are_fetched_by_lhotse_where_that_is_asked_for(corpora, tmp_path, monkeypatch):
    from lhotse.recipes import switchboard

    asked = []
    elsewhere = (corpora / "swb_ms98_transcriptions").rename(tmp_path / "elsewhere")

    def download_and_untar(target_dir, url):
        asked.append(url)
        target_dir.mkdir(parents=True)
        return elsewhere.rename(target_dir / "swb_ms98_transcriptions")

    monkeypatch.setattr(switchboard, "download_and_untar", download_and_untar)
    data = tmp_path / "data"
    assert run(corpora, data, "--download_transcripts", "true") == 0
    assert run(corpora, data) == 0  # found where they were put
    assert len(asked) == 1


def test_persons_keep_dev_and_train_apart(corpora, tmp_path):
    table = tmp_path / "conv_tab.csv"
    rows = [f"{call},910304,{a},{b}" for call, a, b in ((2001, 1, 2), (2005, 1, 3), (2006, 4, 3))]
    write(table, *rows, "2008,910304,5,2")
    data = tmp_path / "data"
    assert run(corpora, data, "--speakers", str(table)) == 0
    assert set(keys(data / "train_dev" / "spk2utt")) == {"sw1", "sw2"}
    assert set(keys(data / "train_nodup" / "spk2utt")) <= {"sw3", "sw4", "sw5"}


def sctk():
    try:
        return bool(find_hubscr())
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not sctk(), reason="hubscr.pl (Debian's package sctk) is not here")
@pytest.mark.parametrize(("segments", "name"), [("true", "segments"), ("false", "call_segments")])
def test_nist_scores_what_is_prepared(corpora, tmp_path, segments, name):
    assert run(corpora, tmp_path / "data", "--segments", segments) == 0
    folder = tmp_path / "data" / "eval2000"
    # All is right but a word of CallHome's six; what only hesitates costs nothing.
    text = (folder / "text").read_text().replace(NOTHING_SAID, "uh")
    (tmp_path / "hyp").write_text(text.replace("police", "please"))
    files = {"stm": folder / "stm", "glm": folder / "glm", "hyp": tmp_path / "hyp"}
    files |= {"segments": folder / name, "output": tmp_path / "scores"}
    assert (
        score_hub5([str(word) for pair in files.items() for word in ("--" + pair[0], pair[1])]) == 0
    )
    rows = {row["part"]: row for row in json.loads((tmp_path / "scores" / "hub5.json").read_text())}
    errors = {part: rows[part]["substitutions"] for part in ("Switchboard", "CallHome", "All")}
    assert errors == {"Switchboard": 0, "CallHome": 1, "All": 1}
    assert rows["All"]["deletions"] == rows["All"]["insertions"] == 0


FILES = {
    "dictionary": "swb_ms98_transcriptions/sw-ms98-dict.text",
    "transcript": "swb_ms98_transcriptions/20/2001/sw2001A-ms98-a-trans.text",
    "stm": "LDC2002T43/reference/hub5e00.english.000405.stm",
    "glm": "LDC2002T43/reference/en20000405_hub5.glm",
    "audio": "LDC97S62/swb1_d2/data/sw02001.sph",
    "audio of the test": "LDC2002S09/hub5e_00/english/sw_4390.sph",
    "calls": "LDC2004T19/doc/fe_03_p1_calldata.tbl",
    "Fisher's transcript": "LDC2004T19/data/trans/000/fe_03_00001.txt",
    "speakers": "conv_tab.csv",
}


# Folders in place of the others are as if these were not there.
@pytest.mark.parametrize(
    ("file", "fault"),
    [
        *((file, "binary") for file in FILES),
        *((file, "folder") for file in ("dictionary", "stm", "glm", "speakers")),
    ],
)
def test_a_file_of_something_else_is_named_in_one_line(corpora, tmp_path, capsys, file, fault):
    write(corpora / FILES["speakers"], "2001,1,11,12")
    path = corpora / FILES[file]
    assert path.is_file()
    path.unlink()
    if fault == "binary":
        path.write_bytes(bytes(range(128)) * 20)
    else:
        path.mkdir()
    fisher = str(corpora / "LDC2004S13"), str(corpora / "LDC2004T19")
    options = "--fisher", *fisher, "--speakers", str(corpora / FILES["speakers"])
    assert run(corpora, tmp_path / "data", *options) == 1
    said = capsys.readouterr().err
    assert said.startswith("espnet-quant4 prepare-switchboard: ") and said.count("\n") == 1, said
    assert path.name in said
