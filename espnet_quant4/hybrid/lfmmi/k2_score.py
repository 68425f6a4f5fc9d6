"""The denominator's total score by k2, for graphics cards.

k2's wheels are for single versions of torch; it is imported when it is asked for, and never needed.
Values and gradients were compared with k2 1.23.4: they differ by what its float32 scores round off.
"""

from __future__ import annotations

import torch

from espnet_quant4.hybrid.lfmmi.state_graph import StateGraph

#: k2 prunes paths that are worse than the best one by more, in nats; this is none.
OUTPUT_BEAM = 1e10


class K2TotalScore(torch.nn.Module):
    """As `espnet_quant4.hybrid.lfmmi.forward_backward.TotalScore`, by ``k2.intersect_dense``.

    Args:
        graph: the hidden Markov model. Its transitions are spelled out, which a smoothed graph has as
            many of as there are pairs of states.
    """

    def __init__(self, graph: StateGraph) -> None:
        super().__init__()
        self.register_buffer("arcs", k2_arcs(graph), persistent=False)

    def forward(self, logits: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the totals ``(B,)`` float64; arguments are those of ``TotalScore``."""
        import k2

        order = lengths.cpu().argsort(descending=True)  # which k2 asks for
        segments = torch.stack([order, torch.zeros_like(order), lengths.cpu()[order]], dim=1)
        dense = k2.DenseFsaVec(logits.float(), segments.int())
        graphs = k2.create_fsa_vec([k2.Fsa(self.arcs)] * len(order))
        lattices = k2.intersect_dense(graphs, dense, output_beam=OUTPUT_BEAM)
        totals = lattices.get_tot_scores(log_semiring=True, use_double_scores=True)
        return totals[order.argsort().to(totals.device)]


def k2_arcs(graph: StateGraph) -> torch.Tensor:
    """Return ``(arcs, 4)`` int32: source, target, label and the bits of the float32 score.

    k2's start is state 0, and its one final state, entered with label -1, comes last.
    """
    transition = graph.transition()
    source, target = transition.indices()
    states = torch.arange(len(graph.pdfs))
    end = len(states) + 1
    rows = [
        (torch.zeros_like(states), states + 1, graph.pdfs, graph.initial),
        (source + 1, target + 1, graph.pdfs[target], transition.values()),
        (states + 1, torch.full_like(states, end), torch.full_like(states, -1), graph.final),
    ]
    sources, targets, labels, probabilities = map(torch.cat, zip(*rows, strict=True))
    scores = probabilities.log().float().contiguous().view(torch.int32)
    arcs = torch.stack([sources.int(), targets.int(), labels.int(), scores], dim=1)
    arcs = arcs[probabilities > 0]
    return arcs[torch.argsort(arcs[:, 0], stable=True)].contiguous()
