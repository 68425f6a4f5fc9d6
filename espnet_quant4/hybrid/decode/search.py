"""Viterbi beam search in a decoding graph, by ``kaldi_decoder``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from espnet_quant4.hybrid.decode.lattice import Hypothesis, nbest
from espnet_quant4.hybrid.kaldi import kaldi_decoder, kaldifst
from espnet_quant4.hybrid.openfst import from_kaldifst


class SearchError(ValueError):
    """An utterance or an option that cannot be searched with; names value and next step."""


@dataclass(frozen=True)
class SearchOptions:
    """What decides the outcome of a search.

    Attributes:
        acoustic_scale: factor of the scores; the graph's costs keep theirs.
        beam: paths that cost this much more than the best one are given up.
        max_active: paths kept in a frame, of all that are within the beam.  Without lattices only:
            the lattice decoder prunes by the beam alone.
        lattice_beam: what is kept in a lattice, by cost; no more than ``beam`` makes sense.
        nbest: how many word sequences; above 1 through lattices.
    """

    acoustic_scale: float = 0.1
    beam: float = 13.0
    max_active: int = 7000
    lattice_beam: float = 6.0
    nbest: int = 1

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise SearchError(f"{field.name} {value}: valid are numbers above 0")


@dataclass(frozen=True)
class Found:
    """The outcome for one utterance.

    Attributes:
        hypotheses: different word sequences, the best first; empty where no path was left.
        reached_final: whether they end where the graph lets an utterance end.  If not, they are the
            best that the scores had to offer until there.
    """

    hypotheses: list[Hypothesis]
    reached_final: bool


class Searcher:
    """Searches one graph.

    Args:
        graph: ``kaldifst`` FST whose input labels are pdf + 1 and whose output labels are words.
        options: see `SearchOptions`.
    """

    def __init__(self, graph: Any, options: SearchOptions) -> None:
        self.options = options
        module = kaldi_decoder()
        if options.nbest == 1:
            config = module.FasterDecoderOptions(beam=options.beam, max_active=options.max_active)
            self._decoder = module.FasterDecoder(graph, config)
        else:
            config = module.LatticeSimpleDecoderConfig(
                beam=options.beam, lattice_beam=options.lattice_beam
            )
            self._decoder = module.LatticeSimpleDecoder(graph, config)
        # The decoders keep no reference to it.
        self._graph = graph

    def __call__(self, scores: NDArray[np.float32]) -> Found:
        """Search.

        Args:
            scores: (frames, pdfs) float32, log likelihoods up to a constant a frame.

        Raises:
            SearchError: without a frame, or for scores that are NaN or infinite.
        """
        if scores.ndim != 2 or not len(scores):
            raise SearchError(f"scores of shape {scores.shape}; wanted: (frames, pdfs)")
        if not np.isfinite(scores).all():
            raise SearchError(
                "the scores hold NaN or infinite values; look at the network's output and the prior"
            )
        scaled = np.ascontiguousarray(scores * np.float32(self.options.acoustic_scale), np.float32)
        decodable = kaldi_decoder().DecodableCtc(scaled)
        return self._best(decodable) if self.options.nbest == 1 else self._lattice(decodable)

    def _best(self, decodable: Any) -> Found:
        self._decoder.decode(decodable)
        there, path = self._decoder.get_best_path()
        if not there:
            return Found([], False)
        _, _, words, cost = kaldifst().get_linear_symbol_sequence(path)
        hypothesis = Hypothesis(tuple(words), cost.value2, cost.value1)
        return Found([hypothesis], self._decoder.reached_final())

    def _lattice(self, decodable: Any) -> Found:
        self._decoder.decode(decodable)
        there, lattice = self._decoder.get_raw_lattice()
        if not there:
            return Found([], False)
        reached = np.isfinite(self._decoder.final_relative_cost())
        return Found(nbest(from_kaldifst(lattice), self.options.nbest), bool(reached))
