"""Small folders that look like the LDC's: SPHERE files and transcripts in the original layouts.

Side A of each call is a low tone and side B a high one, so that a test hears which one it got.
"""

import numpy as np

RATE = 8000
TONES = (440, 1500)
ULAW_BIAS, ULAW_CLIP = 33, 8158


def ulaw(samples):
    """Encode int16 by ITU-T G.711, mu-law; uint8 of the same shape."""
    magnitude = np.minimum(np.abs(samples.astype(np.int64)) >> 2, ULAW_CLIP) + ULAW_BIAS
    exponent = np.floor(np.log2(magnitude)).astype(np.int64) - 5
    mantissa = (magnitude >> (exponent + 1)) & 0xF
    return (~((samples < 0) * 0x80 | exponent << 4 | mantissa) & 0xFF).astype(np.uint8)


def tones(seconds, channels=2):
    """Return int16 [samples, channels]."""
    times = np.arange(round(seconds * RATE))[:, None] / RATE
    return (8000 * np.sin(2 * np.pi * np.array(TONES[:channels]) * times)).astype(np.int16)


def write_sphere(path, samples, coding="ulaw", rate=RATE, drop_bytes=0):
    """Write int16 [samples, channels] as the LDC's media have them: mu-law, 1024 bytes of header."""
    data = ulaw(samples).tobytes()
    fields = [
        "conversation_id -s4 2001",
        "database_id -s13 SWITCHBOARD-1",
        f"channel_count -i {samples.shape[1]}",
        f"sample_count -i {len(samples)}",
        f"sample_rate -i {rate}",
        "sample_n_bytes -i 1",
        "sample_byte_format -s1 1",
        "sample_sig_bits -i 8",
        f"sample_coding -s{len(coding)} {coding}",
        "channels_interleaved -s4 TRUE",
        "end_head",
    ]
    head = "\n".join(["NIST_1A", "   1024", *fields, ""]).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head.ljust(1024, b" ") + data[: len(data) - drop_bytes])


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


DICTIONARY = (
    "# a comment",
    "",
    "yeah y ae",
    "IBM ay b iy eh m",
    "IBM's ay b iy eh m z",
    "VCRs v iy s iy aa r z",
    "NASA n ae s ax",
    "i[t]- ih",
    "[laughter-yeah] y ae",
    "them_1 eh m",
    "them_1's eh m z",
    "[silence] sil",
    "[noise] sil",
)


class Switchboard:
    """LDC97S62 as it came on four disks, and the ISIP transcripts."""

    def __init__(self, folder):
        self.audio = folder / "LDC97S62"
        self.transcripts = folder / "swb_ms98_transcriptions"
        write(self.transcripts / "sw-ms98-dict.text", *DICTIONARY)

    def sph(self, call, disk=1):
        return self.audio / f"swb1_d{disk}" / "data" / f"sw0{call}.sph"

    def text(self, call, side):
        name = f"sw{call}{side}-ms98-{side.lower()}-trans.text"
        return self.transcripts / str(call)[:2] / str(call) / name

    def add(self, call, texts_a=("yeah",), texts_b=("okay",), seconds=None):
        """Add a call of which each text lasts a second."""
        if seconds is None:
            seconds = max(len(texts_a), len(texts_b))
        write_sphere(self.sph(call, 1 + call % 4), tones(seconds))
        for side, texts in zip("AB", (texts_a, texts_b), strict=True):
            name = f"sw{call}{side}-ms98-a"
            rows = [
                f"{name}-{i + 1:04d} {i:.6f} {i + 1:.6f} {text}" for i, text in enumerate(texts)
            ]
            write(self.text(call, side), *rows)
        return self


STM = (
    ';; CATEGORY "0" "" ""',
    ';; LABEL "O" "Overall" "Overall"',
    "sw_4390 A sw_4390_A 0.00 1.00 <O,sw,F,sw-F> (%HESITATION) YEAH <B_ASIDE> I KNOW <E_ASIDE>",
    "sw_4390 B sw_4390_B 1.00 2.00 <O,sw,M,sw-M> ((%HESITATION))",
    "en_4156 A en_4156_A 0.50 1.50 <O,en,F,en-F> { HE IS / HE'S } A POLICE (OFF-) OFFICER",
    "en_4156 B en_4156_B 0.00 3.00 <O,en,M,en-M> IGNORE_TIME_SEGMENT_IN_SCORING",
)


GLM = (
    ";; rules made up",
    '* name "made up"',
    '* desc "made up"',
    "* format = 'NIST1'",
    "* max_nrules = '10'",
    "* copy_no_hit = 'T'",
    "* case_sensitive = 'F'",
    "[UH] => [%HESITATION] / [ ] __ [ ]",
)


class Eval2000:
    """LDC2002S09 and LDC2002T43."""

    def __init__(self, folder, stm=STM, seconds=3):
        self.audio = folder / "LDC2002S09"
        self.text = folder / "LDC2002T43"
        self.english = self.audio / "hub5e_00" / "english"
        self.stm = self.text / "reference" / "hub5e00.english.000405.stm"
        for call in ("sw_4390", "en_4156"):
            write_sphere(self.english / f"{call}.sph", tones(seconds))
            write(
                self.text / "reference" / "english" / f"{call}.txt",
                "#Language: eng",
                f"#File id: {call[3:]}",
                "0.20 1.10 A: %um, yeah, I know {breath}",
            )
        write(self.stm, *stm)
        write(self.text / "reference" / "en20000405_hub5.glm", *GLM)


class Fisher:
    """LDC2004S13 and LDC2004T19, of part 1."""

    def __init__(self, folder):
        self.audio = folder / "LDC2004S13"
        self.text = folder / "LDC2004T19"
        self.rows = [",".join(["CALL_ID", *(f"column{i}" for i in range(1, 15))])]

    def add(self, call, *lines, persons=("101", "202"), seconds=4):
        write_sphere(self.audio / "fe_03_p1_sph1" / "audio" / "000" / f"{call}.sph", tones(seconds))
        heading = f"# {call}.sph", "# Transcribed at the LDC", ""
        write(self.text / "data" / "trans" / "000" / f"{call}.txt", *heading, *lines)
        row = [call[-5:], "20030101", "12:00:00", "ENG01", "M", persons[0], "f", "x", "y", "z"]
        self.rows.append(",".join([*row, persons[1], "m", "x", "y", "z"]))
        write(self.text / "doc" / "fe_03_p1_calldata.tbl", *self.rows)
        return self
