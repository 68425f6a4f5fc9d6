"""Development part, speakers apart, and the cap on what is said over and over."""

from itertools import pairwise
from pathlib import Path

import pytest

from espnet_quant4.corpora.switchboard.findings import CorpusError, Findings
from espnet_quant4.corpora.switchboard.split import (
    DEV_CALL,
    DEV_SPEAKER,
    cap_duplicates,
    duplicates_rule,
    split,
)
from espnet_quant4.corpora.switchboard.utterances import make_utterance


def utterance(call, channel, start, text="yeah", person=None):
    times = float(start), start + 1.0
    return make_utterance(f"sw0{call}", channel, times, text, Path("x.sph"), person)


def test_no_speaker_or_call_of_dev_is_in_train():
    corpus = [
        *(utterance(2001, 0, start, person="sw1") for start in range(3)),
        *(utterance(2001, 1, start, person="sw2") for start in range(2)),
        *(utterance(2005, 0, start, person="sw1") for start in range(2)),
        *(utterance(2005, 1, start, person="sw3") for start in range(4)),
    ]
    findings = Findings("swbd")
    train, dev = split(corpus, findings, 2)
    assert dev == corpus[:2]
    assert train == corpus[-4:]
    assert findings.count(DEV_SPEAKER) == 3
    assert findings.count(DEV_CALL) == 2


@pytest.mark.parametrize("dev_utterances", [1, 2, 3, 0])
def test_a_corpus_of_which_nothing_is_left_to_train_on_is_refused(dev_utterances):
    corpus = [utterance(2001, 0, 0), utterance(2001, 1, 0)]
    with pytest.raises(CorpusError, match="--dev_utterances"):
        split(corpus, Findings("swbd"), dev_utterances)


def test_default_is_the_first_4000():
    corpus = [utterance(2001 + i // 90, 0, i % 90) for i in range(4050)]
    corpus += [utterance(3001, 0, start) for start in range(3)]
    train, dev = split(corpus, Findings("swbd"))
    assert (len(train), len(dev)) == (3, 4000)  # 50 of call 2045 are the speaker's of dev


def test_copies_of_a_text_are_capped_and_spread():
    corpus = [utterance(2001, 0, i, "uh-huh" if i % 2 else f"text {i}") for i in range(2000)]
    findings = Findings("swbd")
    kept = cap_duplicates(corpus, findings)
    copies = [each for each in kept if each.text == "uh-huh"]
    assert len(copies) == 300
    assert len(kept) == 1300
    assert findings.count(duplicates_rule(300)) == 700
    starts = [each.start for each in copies]
    assert starts == sorted(starts)
    gaps = {b - a for a, b in pairwise(starts)}
    assert gaps == {6, 8}  # 1,000 copies, every third or fourth
    assert cap_duplicates(kept, Findings("swbd")) == kept


def test_a_cap_of_nothing_is_refused():
    with pytest.raises(CorpusError, match="--max_duplicates 0"):
        cap_duplicates([utterance(2001, 0, 0)], Findings("swbd"), 0)
