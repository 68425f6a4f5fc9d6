"""Lattice-free MMI: the log ratio of what an alignment allows to everything that could be.

Povey et al., "Purely sequence-trained neural networks for ASR based on lattice-free MMI" (Interspeech
2016); without lattices from a decoder, since the denominator is a graph over pdf ids that is
evaluated in full (`espnet_quant4.hybrid.lfmmi.denominator`).
"""

from __future__ import annotations

import importlib
from pathlib import Path

import torch
from typeguard import typechecked

from espnet_quant4.hybrid.lfmmi.forward_backward import TotalScore
from espnet_quant4.hybrid.lfmmi.fst_text import read_fst
from espnet_quant4.hybrid.lfmmi.k2_score import K2TotalScore
from espnet_quant4.hybrid.lfmmi.lattice_score import lattice_score
from espnet_quant4.hybrid.lfmmi.numerator import NumeratorBuilder
from espnet_quant4.hybrid.lfmmi.runs import Ints
from espnet_quant4.hybrid.lfmmi.state_graph import StateGraph, compile_graph, for_training

BACKENDS = ("torch", "k2")
MAKE_GRAPH = "python -m espnet_quant4.bin.hybrid_denominator --help tells how to make one."


@typechecked
def build_lfmmi_loss(
    denominator: str,
    tolerance: int = 5,
    acoustic_scale: float = 1.0,
    l2_regularize: float = 0.00005,
    leaky_hmm_coefficient: float = 0.00001,
    num_pdfs: int | None = None,
    backend: str = "torch",
) -> LFMMILoss:
    """Return the loss; the arguments are ``lfmmi_conf``.

    Args:
        denominator: the denominator graph, OpenFst text or binary, labels pdf id + 1.
        tolerance: frames of the network's output by which each boundary of the alignment may move to
            either side. Kaldi's recipes allow 50 ms.
        acoustic_scale: factor of the network's output; 1 as in Kaldi's chain models.
        l2_regularize: half of it times the squared output is added; Kaldi's name, its recipes' value.
        leaky_hmm_coefficient: probability of beginning anew after any frame; Kaldi's name and default.
        num_pdfs: number of the network's outputs; if not given, that of the graph. A graph that
            lacks the last ids, as Kaldi's may, needs it.
        backend: what computes the denominator, ``torch`` or ``k2``.

    Raises:
        FileNotFoundError: where there is no graph at that path.
        FstFormatError: for a file that is no denominator graph.
        ValueError: for an option that is not valid.
        ImportError: where k2 is asked for and missing or broken; says how to install it.
    """
    if backend not in BACKENDS:
        raise ValueError(f"lfmmi_conf: backend: {backend!r}; valid: {', '.join(BACKENDS)}.")
    for name, value in (
        ("tolerance", tolerance),
        ("l2_regularize", l2_regularize),
        ("leaky_hmm_coefficient", leaky_hmm_coefficient),
    ):
        if not value >= 0:
            raise ValueError(f"lfmmi_conf: {name}: {value}; valid are 0 and above.")
    if not acoustic_scale > 0:
        raise ValueError(f"lfmmi_conf: acoustic_scale: {acoustic_scale}; valid are above 0.")
    if not Path(denominator).is_file():
        raise FileNotFoundError(
            f"lfmmi_conf: denominator: {denominator}: there is no such file. {MAKE_GRAPH}"
        )
    if backend == "k2":
        _require_k2()
    graph = compile_graph(read_fst(denominator))
    if num_pdfs is not None and num_pdfs < graph.num_pdfs:
        raise ValueError(
            f"lfmmi_conf: denominator: {denominator} has pdf ids up to {graph.num_pdfs - 1}, and "
            f"num_pdfs is {num_pdfs}. It was made for another tree; make it anew. {MAKE_GRAPH}"
        )
    return LFMMILoss(
        graph,
        num_pdfs=graph.num_pdfs if num_pdfs is None else num_pdfs,
        tolerance=tolerance,
        acoustic_scale=acoustic_scale,
        l2_regularize=l2_regularize,
        leaky_hmm_coefficient=leaky_hmm_coefficient,
        backend=backend,
    )


def _require_k2() -> None:
    try:
        importlib.import_module("k2")
    except (ImportError, OSError) as error:
        raise ImportError(
            f"lfmmi_conf: backend: k2 needs k2, which cannot be imported ({error}). Install a wheel "
            "of k2 1.24 or newer for the installed torch, from the k2 project's own pages; or choose "
            "another: torch."
        ) from error


class LFMMILoss(torch.nn.Module):
    """The loss. Its network is decoded without a prior (``prior_scale`` 0), as Kaldi's chain models.

    Args:
        graph: the denominator graph, as `compile_graph` returns it.
        num_pdfs: number of the network's outputs.
        tolerance: see `build_lfmmi_loss`, as the rest.
        acoustic_scale: see there.
        l2_regularize: see there.
        leaky_hmm_coefficient: see there.
        backend: see there.
    """

    def __init__(
        self,
        graph: StateGraph,
        num_pdfs: int,
        tolerance: int,
        acoustic_scale: float,
        l2_regularize: float,
        leaky_hmm_coefficient: float,
        backend: str,
    ):
        super().__init__()
        self.num_pdfs = num_pdfs
        self.acoustic_scale = acoustic_scale
        self.l2_regularize = l2_regularize
        self.numerator = NumeratorBuilder(for_training(graph), tolerance, num_pdfs)
        score = K2TotalScore if backend == "k2" else TotalScore
        self.denominator = score(for_training(graph, leaky_hmm_coefficient))

    def forward(
        self, logits: torch.Tensor, lengths: torch.Tensor, pdf_ids: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Compute the loss of a batch.

        Args:
            logits: ``(B, T, num_pdfs)`` float, the network's output before any softmax; padding may
                hold anything. What is added to all outputs of a frame changes nothing but
                the regularization.
            lengths: ``(B,)`` int64, frames.
            pdf_ids: ``(B, T)`` int64, the alignment at the frame rate of the output.

        Returns:
            The mean over frames of the denominator's log score minus the numerator's, which is at
            least 0, and of the regularization: a scalar in nats. Statistics, means over frames:
            ``lfmmi_numerator``, ``lfmmi_denominator`` and ``lfmmi_l2``.

        Raises:
            ValueError: for shapes that do not fit, an id that is out of range, and an alignment that
                the graph has no path for; names the place in the batch.
        """
        alignments = self._checked_alignments(logits, lengths, pdf_ids)
        frames = lengths.sum().to(logits.device)
        scaled = logits.float() if logits.dtype != torch.float64 else logits
        if self.acoustic_scale != 1:
            scaled = scaled * self.acoustic_scale
        lattices = self.numerator.build(alignments).to(logits.device)
        numerator = lattice_score(scaled, lattices)
        denominator = self.denominator(scaled, lengths)
        self._check_paths(numerator, denominator)
        # In float64 until the difference is taken: both are large, and close to each other.
        loss = (denominator - numerator).sum() / frames
        stats = {"lfmmi_numerator": numerator, "lfmmi_denominator": denominator}
        stats = {name: (score.detach().sum() / frames).float() for name, score in stats.items()}
        if self.l2_regularize > 0:
            time = torch.arange(logits.size(1), device=logits.device)
            inside = time < lengths.to(logits.device).unsqueeze(1)
            squares = logits[inside].to(scaled.dtype).square().sum()
            regularization = 0.5 * self.l2_regularize * squares / frames
            loss = loss + regularization
            stats["lfmmi_l2"] = regularization.detach()
        return loss.to(scaled.dtype), stats

    def _checked_alignments(
        self, logits: torch.Tensor, lengths: torch.Tensor, pdf_ids: torch.Tensor
    ) -> list[Ints]:
        batch, frames, outputs = logits.shape
        if outputs != self.num_pdfs:
            raise ValueError(
                f"logits have {outputs} outputs, the denominator graph {self.num_pdfs} pdf ids: "
                "they belong to different trees, or the graph lacks the last ids (then set "
                f"lfmmi_conf: num_pdfs: {outputs})."
            )
        if pdf_ids.shape != (batch, frames) or lengths.shape != (batch,):
            raise ValueError(
                f"logits are {tuple(logits.shape)}, pdf_ids {tuple(pdf_ids.shape)}, lengths "
                f"{tuple(lengths.shape)}; valid are (B, T, num_pdfs), (B, T) and (B,)."
            )
        alignments = []
        for position, (ids, length) in enumerate(zip(pdf_ids.cpu(), lengths.tolist(), strict=True)):
            if not 1 <= length <= frames:
                raise ValueError(
                    f"batch position {position}: length {length}; valid are 1 to {frames}. Leave "
                    "empty utterances out (min_wav_duration)."
                )
            ids = ids[:length].numpy()
            wrong = ((ids < 0) | (ids >= self.num_pdfs)).nonzero()[0]
            if len(wrong):
                raise ValueError(
                    f"batch position {position}, frame {wrong[0]}: pdf id {ids[wrong[0]]}; valid "
                    f"are 0 to {self.num_pdfs - 1}. Align with the tree that the denominator "
                    "graph was made for."
                )
            alignments.append(ids)
        return alignments

    def _check_paths(self, numerator: torch.Tensor, denominator: torch.Tensor) -> None:
        """Raise where there is no path; NaN goes on, for ESPnet's trainer to skip the step."""
        for name, scores in (("the alignment", numerator), ("any alignment", denominator)):
            without = (scores.detach() == -torch.inf).nonzero().flatten().tolist()
            if without:
                raise ValueError(
                    f"batch positions {', '.join(map(str, without))}: the denominator graph has "
                    f"no path for {name}. Graphs of hybrid_denominator have one for every "
                    "sequence; with a graph of another source leave these utterances out."
                )
