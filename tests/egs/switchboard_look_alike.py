"""Made-up telephone calls in the LDC's layout whose words can be recognized, unlike bare tones."""

import numpy as np
from corpora.switchboard_disks import Eval2000, Switchboard, write, write_sphere
from egs.look_alike import LEXICON, utterance

RATE = 8000


def side(texts_wanted, pitch, random):
    """Return ``([(start, end, text)], samples)`` of one side of a call, times in seconds."""
    rows, pieces, at = [], [], 0
    for _ in range(texts_wanted):
        # What was made for 16 kHz, heard at half the speed.
        text, samples = utterance(random.integers(2, 5), pitch, random)
        rows.append((at / RATE, (at + len(samples)) / RATE, text.lower()))
        pieces.append(samples)
        at += len(samples)
    return rows, np.concatenate(pieces)


def write_call(path, calls):
    """Write a SPHERE file of two sides, padded to one length."""
    length = max(len(samples) for _, samples in calls)
    both = [np.pad(samples, (0, length - len(samples))) for _, samples in calls]
    write_sphere(path, (np.stack(both, axis=1) * 32767).clip(-32768, 32767).astype(np.int16))


def write_corpora(folder, calls=10, texts_a_side=3, seed=0):
    """Write LDC97S62 with its transcripts, and LDC2002S09 and LDC2002T43 with two calls.

    Returns:
        The words of the STM.
    """
    random = np.random.default_rng(seed)
    switchboard = Switchboard(folder)
    words = [line.split() for line in LEXICON.splitlines()]
    write(
        switchboard.transcripts / "sw-ms98-dict.text",
        *(
            f"{word.lower()} {' '.join(phones).lower()}"
            for word, *phones in words
            if "(" not in word
        ),
        "[silence] sil",
    )
    for call in range(2001, 2001 + calls):
        made = [side(texts_a_side, random.uniform(0.93, 1.07), random) for _ in "AB"]
        path = switchboard.sph(call, 1 + call % 4)
        write_call(path, made)
        for name, (rows, _) in zip("AB", made, strict=True):
            label = f"sw{call}{name}-ms98-a"
            write(
                switchboard.text(call, name),
                *(f"{label}-{i:04d} {b:.6f} {e:.6f} {t}" for i, (b, e, t) in enumerate(rows, 1)),
            )
    stm, scored = [';; LABEL "O" "Overall" "Overall"'], []
    evaluation = Eval2000(folder, stm=())
    for call, label in (("sw_4390", "sw"), ("en_4156", "en")):
        made = [side(texts_a_side, random.uniform(0.93, 1.07), random) for _ in "AB"]
        write_call(evaluation.english / f"{call}.sph", made)
        for name, (rows, _) in zip("AB", made, strict=True):
            for begin, end, text in rows:
                stm.append(
                    f"{call} {name} {call}_{name} {begin:.2f} {end:.2f} <O,{label},F,{label}-F> "
                    f"{text.upper()}"
                )
                scored += text.split()
    write(evaluation.stm, *stm)
    return scored
