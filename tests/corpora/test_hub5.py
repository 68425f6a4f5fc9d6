"""Hub5 2000 and RT-03 on look-alike folders: the STM is the reference."""

import pytest
from corpora.switchboard_disks import STM, Eval2000, tones, write, write_sphere

from espnet_quant4.corpora.switchboard.calls import NO_TRANSCRIPT
from espnet_quant4.corpora.switchboard.findings import CorpusError, Findings
from espnet_quant4.corpora.switchboard.hub5 import IGNORED, prepare_eval2000, prepare_rt03
from espnet_quant4.corpora.switchboard.normalize import NOTHING_SAID
from espnet_quant4.corpora.switchboard.segments import BEYOND, CUT
from espnet_quant4.corpora.switchboard.sphere import lhotse_reads_sphere


def prepare(disks):
    findings = Findings("eval2000")
    return prepare_eval2000(disks.audio, disks.text, findings), findings


def test_segments_and_words_are_those_of_the_stm(tmp_path):
    disks = Eval2000(tmp_path)
    from lhotse.recipes.eval2000 import prepare_eval2000 as by_lhotse

    with lhotse_reads_sphere(False):
        raw = by_lhotse(tmp_path, tmp_path / "manifests")["supervisions"]
    # The fault: segments and words of other transcripts.
    assert {(each.start, each.text) for each in raw} == {(0.2, "%um, yeah, I know {breath}")}
    evaluation, findings = prepare(disks)
    assert [(each.name, each.channel, each.text) for each in evaluation.utterances] == [
        ("en_4156-A_000050-000150", 0, "he is a police off- officer"),
        ("sw_4390-A_000000-000100", 0, "yeah i know"),
        ("sw_4390-B_000100-000200", 1, NOTHING_SAID),
    ]
    assert findings.entries == {IGNORED: ["en_4156-B 0"]}
    assert evaluation.glm.startswith(";; rules made up")
    stm = evaluation.stm.format()
    assert "IGNORE_TIME_SEGMENT_IN_SCORING" in stm  # NIST's scorer needs to know
    assert "ASIDE" not in stm
    assert "((" not in stm


def test_media_with_another_folder_in_between(tmp_path):
    disks = Eval2000(tmp_path)
    between = disks.text / "2000_hub5_eng_eval_tr"
    between.mkdir()
    (disks.text / "reference").rename(between / "reference")
    assert len(prepare(disks)[0].utterances) == 3


def test_segments_past_the_audio_are_cut_or_left_out(tmp_path):
    late = "sw_4390 A sw_4390_A {} {} <O,sw,F,sw-F> LATE"
    disks = Eval2000(tmp_path, [*STM, late.format(2.5, 3.5), late.format(3, 4)])
    evaluation, findings = prepare(disks)
    assert findings.count(CUT) == findings.count(BEYOND) == 1
    assert evaluation.utterances[-2].end == 3


def test_audio_that_the_stm_does_not_name_is_counted(tmp_path):
    disks = Eval2000(tmp_path)
    write_sphere(disks.english / "sw_9999.sph", tones(1))
    assert prepare(disks)[1].entries[NO_TRANSCRIPT] == ["sw_9999.sph"]


def test_a_set_that_is_not_whole_is_refused(tmp_path):
    disks = Eval2000(tmp_path)
    write_sphere(disks.english / "sw_4390.sph", tones(3, channels=1))
    with pytest.raises(CorpusError, match=r"sw_4390 cannot be used.*two channels"):
        prepare(disks)
    (disks.english / "sw_4390.sph").unlink()
    with pytest.raises(CorpusError, match=r"1 call\(s\) of the STM have no audio, such as sw_4390"):
        prepare(disks)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sw_4390 A sw_4390_A 2.00 1.00 <O> YEAH", r"\.stm:7: .*ends at 1 s"),
        ("sw_4390 C sw_4390_A 1.00 2.00 <O> YEAH", "channel 'C' of sw_4390"),
        ("sw_4390 A", "is not 'call channel"),
    ],
)
def test_malformed_reference_is_refused(tmp_path, line, message):
    with pytest.raises(CorpusError, match=message):
        prepare(Eval2000(tmp_path, [*STM, line]))


def test_missing_files_are_named_with_the_layout(tmp_path):
    disks = Eval2000(tmp_path)
    disks.stm.unlink()
    with pytest.raises(
        CorpusError, match=r"hub5e00\.english\.000405\.stm is nowhere below .*LDC2002T43"
    ):
        prepare(disks)
    with pytest.raises(CorpusError, match=r"LDC2002S09 has its calls as hub5e_00/english"):
        prepare_eval2000(tmp_path / "nowhere", disks.text, Findings("eval2000"))


@pytest.fixture
def rt03(tmp_path):
    audio = tmp_path / "data" / "audio" / "eval03" / "english" / "cts"
    text = tmp_path / "data" / "references" / "eval03" / "english" / "cts"
    for call in ("sw_45454", "fsh_60262"):
        write_sphere(audio / f"{call}.sph", tones(2))
        write(
            text / f"{call}.stm",
            f"{call} 1 inter_segment_gap 0.00 0.50 <O,sw,F>",
            f"{call} 2 {call}_B 0.50 1.50 <O,sw,F> OKAY",
        )
    write(tmp_path / "data" / "trans_rules" / "en20030506.glm", ";; rules")
    return tmp_path


def test_rt03_channels_are_numbers_and_gaps_no_reference(rt03):
    evaluation = prepare_rt03(rt03, Findings("rt03"))
    assert [(each.name, each.channel, each.text) for each in evaluation.utterances] == [
        ("fsh_60262-B_000050-000150", 1, "okay"),
        ("sw_45454-B_000050-000150", 1, "okay"),
    ]
    assert {segment.channel for segment in evaluation.stm.segments} == {"B"}


def test_rt03_in_another_layout_is_refused(rt03):
    (rt03 / "data" / "audio").rename(rt03 / "audio")
    with pytest.raises(CorpusError, match=r"RT-03 audio: .*is not there.*data/audio/eval03"):
        prepare_rt03(rt03, Findings("rt03"))


def test_latin_1_is_read_and_braces_that_do_not_match_are_named(tmp_path, caplog):
    disks = Eval2000(tmp_path, [*STM, "sw_4390 A s 2.00 2.50 <O> CAF\xc9 { A { B / C } / D }"])
    disks.stm.write_bytes(disks.stm.read_text(encoding="utf-8").encode("latin-1"))
    evaluation, _ = prepare(disks)
    assert "caf\xe9 a b" in [each.text for each in evaluation.utterances]
    assert f"{disks.stm}:7: byte 0xc9 is not UTF-8" in caplog.text
    write(disks.stm, *STM, "sw_4390 A s 2.00 2.50 <O> { A { B / C } D")
    with pytest.raises(CorpusError, match=r"\.stm:7: an opening brace without its closing one"):
        prepare(disks)
