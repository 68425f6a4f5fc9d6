"""Fisher on look-alike folders."""

import pytest
from corpora.switchboard_disks import Fisher, write

from espnet_quant4.corpora.switchboard import calls, fisher, segments
from espnet_quant4.corpora.switchboard.findings import CorpusError, Findings
from espnet_quant4.corpora.switchboard.fisher import prepare_fisher


def prepare(disks, **options):
    findings = Findings("fisher")
    return prepare_fisher([disks.audio, disks.text], findings, **options), findings


@pytest.fixture
def disks(tmp_path):
    return Fisher(tmp_path)


def test_speakers_channels_and_texts(disks):
    disks.add(
        "fe_03_00001",
        "0.50 1.50 A: an- so [laugh] i._b._m.",
        "",
        "1.20 2.00 B: mhm",
        "2.00 2.50 A: ((maybe)) not",
        "3.00 3.50 B:",
        "2.00 1.00 B: back",
        "oops",
    )
    utterances, findings = prepare(disks)
    assert [(each.name, each.channel, each.speaker, each.text) for each in utterances] == [
        ("fe_101-fe_03_00001-A_000050-000150", 0, "fe_101", "an- so [laughter] i b m"),
        ("fe_202-fe_03_00001-B_000120-000200", 1, "fe_202", "mhm"),
    ]
    counts = {rule: len(found) for rule, found in findings.entries.items()}
    assert counts == {fisher.UNSURE: 1, segments.REVERSED: 1, segments.MALFORMED: 1}


def test_calls_that_do_not_match(disks):
    for call in range(1, 5):
        disks.add(f"fe_03_0000{call}", "0.50 1.50 A: yes", persons=("", "5"))
    (disks.audio / "fe_03_p1_sph1" / "audio" / "000" / "fe_03_00001.sph").unlink()
    (disks.text / "data" / "trans" / "000" / "fe_03_00002.txt").unlink()
    table = disks.text / "doc" / "fe_03_p1_calldata.tbl"
    write(table, *[row for row in disks.rows if not row.startswith("00003")])
    with pytest.raises(CorpusError, match=r"2 of 3 calls .*--allow_incomplete"):
        prepare(disks)
    utterances, findings = prepare(disks, allow_incomplete=True)
    assert [each.speaker for each in utterances] == ["fe_03_00004-A"]
    assert findings.entries == {
        calls.NO_AUDIO: ["fe_03_00001"],
        calls.NO_TRANSCRIPT: ["fe_03_00002"],
        fisher.NO_SESSION: ["fe_03_00003"],
        fisher.NO_PERSON: ["fe_03_00004-A"],
    }


def test_missing_folder_and_broken_table_are_named(disks, tmp_path):
    disks.add("fe_03_00001", "0.50 1.50 A: yes")
    with pytest.raises(CorpusError, match=r"Fisher audio: .*nowhere is not there.*LDC2004S13"):
        prepare_fisher([tmp_path / "nowhere"], Findings("fisher"))
    with pytest.raises(CorpusError, match="Fisher transcripts: no file is named"):
        prepare_fisher([disks.audio], Findings("fisher"))
    write(disks.text / "doc" / "fe_03_p1_calldata.tbl", "head", "00001,short")
    with pytest.raises(CorpusError, match=r"calldata\.tbl:2: row '00001,short' has 2 columns"):
        prepare(disks)


def test_a_call_that_two_tables_tell_otherwise_is_named(disks):
    disks.add("fe_03_00001", "0.50 1.50 A: yes")
    table = disks.text / "doc" / "fe_03_p1_calldata.tbl"
    other = table.with_name("fe_03_p2_calldata.tbl")
    write(other, *table.read_text().splitlines())
    assert len(prepare(disks)[0]) == 1
    write(other, *table.read_text().replace("101", "999").splitlines())
    with pytest.raises(CorpusError, match=r"p2_calldata\.tbl:2: call 00001 .*p1_calldata\.tbl:2\."):
        prepare(disks)
