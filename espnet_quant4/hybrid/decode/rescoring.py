"""Choosing from n-best lists with another language model and other scales, tuned on a dev part."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_quant4.hybrid.decode.language_models import SentenceCost
from espnet_quant4.hybrid.decode.nbest_list import Entry
from espnet_quant4.report.scoring import Counts, ScoringError, align, count
from espnet_quant4.text_files import read_json, write_lines

NBest = Mapping[str, Sequence[Entry]]


class RescoringError(ValueError):
    """Options of rescoring that cannot be used."""


@dataclass(frozen=True)
class RescoringOptions:
    """How the parts of a cost are weighed.

        acoustic_cost / lm_scale + graph_cost + lm_weight (new - old) + penalty * words

    with the costs of the new language model and of that in the graph.

    Attributes:
        lm_scale: Kaldi's ``LMWT``, the inverse of the acoustic scale.
        word_insertion_penalty: natural logarithm, for each word.
        lm_weight: 0 keeps the graph's language model, 1 replaces it by the new one; between them is
            a log-linear interpolation.
    """

    lm_scale: float
    word_insertion_penalty: float = 0.0
    lm_weight: float = 0.0

    def __post_init__(self) -> None:
        if not self.lm_scale > 0:
            raise RescoringError(f"lm_scale {self.lm_scale}: valid are numbers above 0")
        if not 0 <= self.lm_weight <= 1:
            raise RescoringError(f"lm_weight {self.lm_weight}: valid are numbers from 0 to 1")


class Rescorer:
    """Chooses a hypothesis of each utterance.

    Args:
        nbest: entries of each utterance.
        new: language model to weigh in.
        old: that of the graph, whose share is taken out; needed with ``new``.
    """

    def __init__(
        self, nbest: NBest, new: SentenceCost | None = None, old: SentenceCost | None = None
    ) -> None:
        if (new is None) != (old is None):
            raise RescoringError(
                "rescoring needs both the new language model and the graph's old one"
            )
        self.nbest = nbest
        self._difference: dict[tuple[str, ...], float] = {}
        if new is not None and old is not None:
            for entry in itertools.chain.from_iterable(nbest.values()):
                if entry.words not in self._difference:
                    self._difference[entry.words] = new(entry.words) - old(entry.words)

    def cost(self, entry: Entry, options: RescoringOptions) -> float:
        """Return the weighed cost of an entry; see `RescoringOptions`."""
        cost = entry.acoustic_cost / options.lm_scale + entry.graph_cost
        cost += options.word_insertion_penalty * len(entry.words)
        if options.lm_weight:
            cost += options.lm_weight * self._difference[entry.words]
        return cost

    def best(self, options: RescoringOptions) -> dict[str, tuple[str, ...]]:
        """Return the words of each utterance; none for one without entries.

        Raises:
            RescoringError: for an ``lm_weight`` without a new language model.
        """
        if options.lm_weight and any(self.nbest.values()) and not self._difference:
            raise RescoringError(
                f"lm_weight {options.lm_weight} without a new language model; give --lm_rescore"
            )
        return {
            utterance: min(entries, key=lambda e: self.cost(e, options)).words if entries else ()
            for utterance, entries in self.nbest.items()
        }


@dataclass(frozen=True)
class Trial:
    """Options with the errors that they make on the dev part."""

    options: RescoringOptions
    counts: Counts


def grid(
    lm_scales: Iterable[float], penalties: Iterable[float], lm_weights: Iterable[float]
) -> Iterator[RescoringOptions]:
    """Yield all combinations."""
    for values in itertools.product(lm_scales, penalties, lm_weights):
        yield RescoringOptions(*values)


def tune(
    rescorer: Rescorer,
    references: Mapping[str, Sequence[str]],
    candidates: Iterable[RescoringOptions],
) -> list[Trial]:
    """Try options on a dev part, never on a part that results are reported for.

    Args:
        rescorer: with the n-best lists of the dev part.
        references: its words.
        candidates: what to try.

    Returns:
        All trials, that with the fewest word errors first, then fewest wrong sentences; of equals
        the one that came first.

    Raises:
        ScoringError: where lists and references do not hold the same utterances.
    """
    if rescorer.nbest.keys() != references.keys():
        few = sorted(rescorer.nbest.keys() ^ references.keys())[:3]
        raise ScoringError(
            f"n-best lists and references hold different utterances, such as {', '.join(few)}"
        )
    known: dict[tuple[str, tuple[str, ...]], Counts] = {}

    def errors(utterance: str, words: tuple[str, ...]) -> Counts:
        key = (utterance, words)
        if key not in known:
            known[key] = count(align(references[utterance], words))
        return known[key]

    trials = []
    for options in candidates:
        best = rescorer.best(options)
        trials.append(Trial(options, sum((errors(*item) for item in best.items()), Counts())))
    return sorted(trials, key=lambda t: (t.counts.errors, t.counts.wrong_sentences))


def write_options(path: Path, options: RescoringOptions) -> None:
    """Write options as JSON, for `read_options`."""
    write_lines(path, [json.dumps(dataclasses.asdict(options), indent=1)])


def read_options(path: Path) -> RescoringOptions:
    """Read what `write_options` wrote.

    Raises:
        RescoringError: for a file that holds something else.
    """
    try:
        values = read_json(path)
        return RescoringOptions(**{name: float(value) for name, value in values.items()})
    except (ValueError, TypeError, AttributeError) as error:
        raise RescoringError(f"{path}: not written by hybrid_rescore ({error})") from error


def format_trials(trials: Sequence[Trial], number: int = 10) -> str:
    """Return the best trials as a table."""
    lines = ["lm_scale  penalty  lm_weight    WER    S.Err"]
    for trial in trials[:number]:
        o, c = trial.options, trial.counts
        lines.append(
            f"{o.lm_scale:8g} {o.word_insertion_penalty:8g} {o.lm_weight:10g} "
            f"{c.error_rate:7.2f} {c.sentence_error_rate:7.2f}"
        )
    return "\n".join(lines)
