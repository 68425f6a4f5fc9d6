"""Training and development part of Switchboard-1, as the published recipes cut them.

Kaldi's ``egs/swbd/s5c/run.sh``: the first 4,000 utterances are for development, the others for
training without all but 300 copies of what is said over and over ("uh-huh").  There speakers may be
in both parts; here they are not.
"""

from __future__ import annotations

from collections.abc import Sequence

from espnet_quant4.corpora.switchboard.findings import CorpusError, Findings
from espnet_quant4.corpora.switchboard.utterances import Utterance

DEV_SPEAKER = "utterances left out of training: their speaker is in dev"
DEV_CALL = (
    "utterances left out of training: their call, on which the sides hear each other, is in dev"
)


def duplicates_rule(most: int) -> str:
    """Return the rule of the cap, for findings."""
    return f"utterances left out of training: over {most} others say the same"


def split(
    utterances: Sequence[Utterance], findings: Findings, dev_utterances: int = 4000
) -> tuple[list[Utterance], list[Utterance]]:
    """Cut off the first utterances for development; return (train, dev).

    Args:
        utterances: in the order of calls and times.
        findings: where `DEV_SPEAKER` and `DEV_CALL` are counted.
        dev_utterances: how many.

    Raises:
        CorpusError: if nothing would be left to train on.
    """
    if dev_utterances < 1:
        raise CorpusError(f"--dev_utterances {dev_utterances}: at least 1 is needed")
    dev = list(utterances[:dev_utterances])
    speakers = {each.speaker for each in dev}
    calls = {each.call for each in dev}
    train = []
    for each in utterances[dev_utterances:]:
        if each.speaker in speakers:
            findings.add(DEV_SPEAKER, each.name)
        elif each.call in calls:
            findings.add(DEV_CALL, each.name)
        else:
            train.append(each)
    if not train:
        raise CorpusError(
            f"{len(utterances)} utterances leave none to train on after the first {dev_utterances} "
            "and all others of their speakers and calls. Is the corpus complete? Else choose fewer "
            "with --dev_utterances."
        )
    return train, dev


def cap_duplicates(
    utterances: Sequence[Utterance], findings: Findings, most: int = 300
) -> list[Utterance]:
    """Return utterances, of each text at most `most`, spread evenly over all that have it.

    Raises:
        CorpusError: if `most` is below 1.
    """
    if most < 1:
        raise CorpusError(f"--max_duplicates {most}: at least 1 is needed")
    copies: dict[str, list[int]] = {}
    for index, each in enumerate(utterances):
        copies.setdefault(each.text, []).append(index)
    kept: set[int] = set()
    for indices in copies.values():
        number = min(most, len(indices))
        kept.update(indices[k * len(indices) // number] for k in range(number))
    for index, each in enumerate(utterances):
        if index not in kept:
            findings.add(duplicates_rule(most), each.name)
    return [each for index, each in enumerate(utterances) if index in kept]
