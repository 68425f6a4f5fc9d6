"""When each recognized word was said: by aligning hypotheses with the scores that were searched.

The output labels of an aligned path tell the words but not where they begin: context and
determinization move them.  The phones of the path do, once they are split into pronunciations.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from espnet_quant4.hybrid.gmm.acoustic_model import AcousticModel
from espnet_quant4.hybrid.gmm.alignment import TrainingGraphs, align, score_decodable
from espnet_quant4.hybrid.gmm.phone_segments import TransitionTable, phone_segments
from espnet_quant4.hybrid.lang.lang_directory import SILENCE, Lang
from espnet_quant4.hybrid.lang.lexicon import read_lexicon
from espnet_quant4.report.ctm import CtmWord, Segment, spread

# Seconds by which an utterance's scores and its segment may differ in length: networks pad and cut
# a frame or two.
TOLERANCE = 0.1

# Cost and phone ids of each pronunciation of each word.
Pronunciations = Mapping[str, Sequence[tuple[float, tuple[int, ...]]]]
Span = tuple[int, int]


class WordTimesError(ValueError):
    """Hypotheses, scores, lexicon, model or segments that do not belong together."""


@dataclass(frozen=True)
class AlignmentOptions:
    """How hypotheses are aligned.

    Attributes:
        acoustic_scale: factor of the scores; that of the search.
        beam: paths that cost this much more than the best one are given up.
        retry_beam: the same for utterances that this leaves without a path.
    """

    acoustic_scale: float = 0.1
    beam: float = 10.0
    retry_beam: float = 40.0

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if not value > 0:
                raise WordTimesError(f"{each.name} {value}: valid are numbers above 0")


@dataclass
class WordFrames:
    """Where words are.

    Attributes:
        spans: first frame and frame after the last of each word of each aligned utterance.
        frames: number of frames of every utterance that has words.
        failed: why, for utterances with words that could not be aligned.
    """

    spans: dict[str, list[Span]] = field(default_factory=dict)
    frames: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def read_pronunciations(lang: Lang) -> dict[str, list[tuple[float, tuple[int, ...]]]]:
    """Return the cost (minus natural log probability) and the phone ids of all pronunciations."""
    found: dict[str, list[tuple[float, tuple[int, ...]]]] = {}
    for entry in read_lexicon(lang.folder / "lexiconp.txt", variants=False):
        phones = tuple(lang.phones[phone] for phone in entry.phones)
        found.setdefault(entry.word, []).append((-math.log(entry.probability), phones))
    return found


def split_phones(
    phones: Sequence[int], words: Sequence[str], pronunciations: Pronunciations, silence: int
) -> list[Span] | None:
    """Find the phones of each word.

    Args:
        phones: ids, with silence before the first word and after any word, or without.
        words: what was said.
        pronunciations: of at least these words.  Where they allow several splits, the most likely
            pronunciations count, as in the lexicon's FST.
        silence: id of the optional phone.

    Returns:
        First phone and phone after the last of each word; None where they are not those of the words.
    """
    phones = tuple(phones)
    # By the number of phones used so far: cost and words so far.
    reached: dict[int, tuple[float, tuple[Span, ...]]] = {0: (0.0, ())}
    if phones[:1] == (silence,):
        reached[1] = (0.0, ())
    for word in words:
        after: dict[int, tuple[float, tuple[Span, ...]]] = {}
        for begin, (cost, spans) in reached.items():
            for more, spoken in pronunciations[word]:
                end = begin + len(spoken)
                if phones[begin:end] != spoken:
                    continue
                pause = phones[end : end + 1] == (silence,)
                for used in (end, end + 1) if pause else (end,):
                    if used not in after or cost + more < after[used][0]:
                        after[used] = (cost + more, (*spans, (begin, end)))
        reached = after
    best = reached.get(len(phones))
    return None if best is None else list(best[1])


def word_frames(
    scores: Mapping[str, NDArray[np.float32]],
    hypotheses: Mapping[str, Sequence[str]],
    lang: Lang,
    model: Path,
    options: AlignmentOptions | None = None,
) -> WordFrames:
    """Align hypotheses with the scores that were searched.

    Args:
        scores: ``(frames, num_pdfs)`` float32 of at least the utterances with words: log posteriors
            less log priors.
        hypotheses: words of each utterance.
        lang: the lang folder of the graph that was searched.
        model: folder with tree and transition model (``final.mdl``) of the scored states.
        options: see `AlignmentOptions`.

    Raises:
        WordTimesError: for a word without pronunciation, an utterance without scores, scores of another
            tree, or a lexicon with phones that the model lacks.
        KaldiFileError: for damaged files, or a tree and a model that do not belong together.
    """
    options = options or AlignmentOptions()
    pronunciations = read_pronunciations(lang)
    said = {utterance: list(words) for utterance, words in hypotheses.items() if words}
    _check_words(said, pronunciations, lang)
    lacking = sorted(said.keys() - scores.keys())
    if lacking:
        raise WordTimesError(
            f"{len(lacking)} of {len(said)} hypotheses have no scores, such as {lacking[0]}. Take the "
            "scores.scp that was searched."
        )
    known = AcousticModel.read(model, with_mixtures=False)
    table = TransitionTable.of(known.transitions)
    _check_phones(pronunciations, table, lang, model)
    result = WordFrames()
    alignments = align(
        known,
        TrainingGraphs(known, lang, said),
        _usable(said, scores, known.tree.num_pdfs, model, result),
        score_decodable(known.id2pdf),
        beam=options.beam,
        retry_beam=options.retry_beam,
        acoustic_scale=options.acoustic_scale,
    )
    result.failed.update(alignments.failed)
    silence = lang.phones[SILENCE]
    for utterance, ids in alignments.ids.items():
        segments = phone_segments(ids, table)
        phones = [phone for phone, _, _ in segments]
        spans = split_phones(phones, said[utterance], pronunciations, silence)
        if spans is None:
            result.failed[utterance] = "the aligned phones are not those of lexiconp.txt"
            continue
        result.spans[utterance] = [
            (segments[first][1], segments[after - 1][2]) for first, after in spans
        ]
    return result


def timed_words(
    hypotheses: Mapping[str, Sequence[str]],
    found: WordFrames,
    segments: Mapping[str, Segment] | None = None,
    frame_shift: float = 0.01,
) -> list[CtmWord]:
    """Give words the times of their frames; of what could not be aligned even shares.

    Args:
        hypotheses: words of each utterance.
        found: of these hypotheses.
        segments: where in its call each utterance is; without, it is a call of its own with
            channel 1.
        frame_shift: in seconds.

    Raises:
        WordTimesError: for an utterance without segment, or with one of another length.
    """
    words: list[CtmWord] = []
    for utterance, frames in found.frames.items():
        segment = Segment(utterance, "1", 0.0, frames * frame_shift)
        if segments is not None:
            segment = _segment_of(utterance, segments, frames * frame_shift)
        texts = hypotheses[utterance]
        if utterance not in found.spans:
            words += spread(texts, segment)
            continue
        for text, span in zip(texts, found.spans[utterance], strict=True):
            # The frames of padding may lie behind the segment's end.
            start, end = (
                round(min(segment.start + frame * frame_shift, segment.end), 3) for frame in span
            )
            words.append(CtmWord(segment.call, segment.channel, start, round(end - start, 3), text))
    return words


def _usable(
    said: Iterable[str],
    scores: Mapping[str, NDArray[np.float32]],
    num_pdfs: int,
    model: Path,
    result: WordFrames,
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield the scores that can be aligned; notes lengths and the others in ``result``."""
    for utterance in tqdm(
        said, desc="word times", unit="utterance", file=sys.stderr, mininterval=1
    ):
        values = scores[utterance]
        if values.ndim != 2 or values.shape[1] != num_pdfs:
            raise WordTimesError(
                f"{utterance}: scores of shape {values.shape}, but {model}/tree has {num_pdfs} pdfs: "
                "wanted (frames, pdfs). Take the tree that the network was trained with."
            )
        result.frames[utterance] = len(values)
        if not len(values):
            result.failed[utterance] = "no frame"
        elif not np.isfinite(values).all():
            result.failed[utterance] = "the scores hold NaN or infinite values"
        else:
            yield utterance, values


def _check_words(
    said: Mapping[str, Sequence[str]], pronunciations: Pronunciations, lang: Lang
) -> None:
    for utterance, words in said.items():
        for word in words:
            if word not in pronunciations:
                raise WordTimesError(
                    f"{utterance}: word {word!r} has no pronunciation in {lang.folder}/lexiconp.txt. "
                    "Take the lang folder of the graph that was searched."
                )


def _check_phones(
    pronunciations: Pronunciations, table: TransitionTable, lang: Lang, model: Path
) -> None:
    used = {
        phone for entries in pronunciations.values() for _, spoken in entries for phone in spoken
    }
    lacking = sorted((used | {lang.phones[SILENCE]}) - set(table.phone[1:].tolist()))
    if lacking:
        names = {number: phone for phone, number in lang.phones.items()}
        raise WordTimesError(
            f"{model}/final.mdl lacks phones of {lang.folder}: "
            f"{' '.join(names[phone] for phone in lacking)}. Take the lang folder that it was trained "
            "with."
        )


def _segment_of(utterance: str, segments: Mapping[str, Segment], seconds: float) -> Segment:
    step = "Take the segments of the data folder that was decoded"
    segment = segments.get(utterance)
    if segment is None:
        raise WordTimesError(f"{utterance}: no line in segments. {step}.")
    length = segment.end - segment.start
    if abs(length - seconds) > TOLERANCE:
        raise WordTimesError(
            f"{utterance}: {seconds:.2f} s of scores, but {length:.2f} s in segments; they may differ "
            f"by {TOLERANCE:g} s. {step}, and the --frame_shift of its scores."
        )
    return segment
