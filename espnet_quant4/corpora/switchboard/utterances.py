"""Utterances of sides of calls, made of lhotse's supervisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espnet_quant4.corpora.switchboard.findings import Findings
from espnet_quant4.corpora.switchboard.normalize import NOISES
from espnet_quant4.corpora.switchboard.segments import SIDES

NO_WORDS = "utterances left out: no word is left after normalization"
UNKNOWN_MARK = "utterances kept with a mark that no rule of normalization knows"
SAME_NAME = "utterances left out: another one has the same side and times, to 10 ms"
_MARKS = set("[]{}<>/_")


@dataclass(frozen=True)
class Utterance:
    """An utterance; times in seconds.

    Attributes:
        name: begins with the speaker, as Kaldi's sorting demands.
        call: such as ``sw02001``.
        channel: 0 (side A) or 1 (side B) of the call's file.
        speaker: a side of a call, or a person where the corpus tells who it is.
        text: normalized.
        audio: the call's file.
    """

    name: str
    call: str
    channel: int
    start: float
    end: float
    speaker: str
    text: str
    audio: Path

    @property
    def side(self) -> str:
        """Return the call's side, such as ``sw02001-A``: Kaldi's recording."""
        return side_name(self.call, self.channel)

    @property
    def order(self) -> str:
        """Return what utterances are sorted by before speakers are known: side and times."""
        return f"{self.side}_{times_name(self.start, self.end)}"


def side_name(call: str, channel: int) -> str:
    """Return the name of a side of a call."""
    return f"{call}-{SIDES[channel]}"


def times_name(start: float, end: float) -> str:
    """Return times as Kaldi's names of utterances have them, in hundredths of a second."""
    return f"{int(100 * start + 0.5):06d}-{int(100 * end + 0.5):06d}"


def make_utterance(
    call: str,
    channel: int,
    times: tuple[float, float],
    text: str,
    audio: Path,
    person: str | None = None,
) -> Utterance:
    """Name an utterance and its speaker: the side, or `person` if that is known."""
    side = side_name(call, channel)
    name = f"{side}_{times_name(*times)}"
    if person is not None:
        name = f"{person}-{name}"
    return Utterance(name, call, channel, *times, person or side, text, audio)


def collect(utterances: Iterable[Utterance], findings: Findings) -> list[Utterance]:
    """Return utterances by `Utterance.order`, without those that have no word or no own name."""
    kept: dict[str, Utterance] = {}
    for each in utterances:
        if not each.text:
            findings.add(NO_WORDS, each.name)
        elif each.name in kept:
            findings.add(SAME_NAME, each.name)
        else:
            kept[each.name] = each
            odd = [w for w in each.text.split() if _MARKS & set(w) and w not in NOISES]
            if odd:
                findings.add(UNKNOWN_MARK, each.name, odd[0])
    return sorted(kept.values(), key=lambda each: each.order)


def true_channel(supervision: Any) -> int:
    """Return the channel of one of lhotse's supervisions, which is what tells the side."""
    channel = supervision.channel
    return int(channel[0] if isinstance(channel, list) else channel)


def persons_of(table: Mapping[str, str], call: str, channel: int) -> str | None:
    """Return who speaks on a side, if a table of ``CALL-SIDE -> person`` tells."""
    return table.get(side_name(call, channel))
