"""Forward-backward over lattices, one for each sequence: nodes have a frame, arcs go to the next.

In logarithms, unlike `espnet_quant4.hybrid.lfmmi.forward_backward`: a lattice may force a path through
what the network finds next to impossible, where scaled probabilities would vanish. There are few
arcs, so that it costs little.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch


@dataclass(frozen=True)
class Lattices:
    """Lattices of a batch, in one. Nodes and arcs are sorted by frame.

    Attributes:
        batch: number of sequences.
        sequence: (nodes,) int64, the position in the batch.
        frame: (nodes,) int64.
        pdf: (nodes,) int64, the pdf id that a node emits.
        initial: (nodes of frame 0,) float64, log probability of beginning there.
        final: (nodes,) float64, log probability of ending; minus infinity where a path goes on.
        source: (arcs,) int64.
        target: (arcs,) int64, a node of the frame after the source's.
        weight: (arcs,) float64, log probability.
        nodes_before: for each frame, and past the last one: how many nodes come before it.
        arcs_before: the same of arcs, by the frame of their target.
    """

    batch: int
    sequence: torch.Tensor
    frame: torch.Tensor
    pdf: torch.Tensor
    initial: torch.Tensor
    final: torch.Tensor
    source: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor
    nodes_before: list[int]
    arcs_before: list[int]

    def to(self, device: torch.device) -> Lattices:
        """Return it on a device."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(
            self, **{k: v.to(device) for k, v in tensors.items() if isinstance(v, torch.Tensor)}
        )


def lattice_score(logits: torch.Tensor, lattices: Lattices) -> torch.Tensor:
    """Return the log of the summed probability of all paths through each lattice; differentiable.

    Args:
        logits: ``(B, T, P)`` float, logarithms of scores; what no node is at may hold anything.
        lattices: of the same device.

    Returns:
        ``(B,)`` float64, in nats; minus infinity for a lattice without a path.
    """
    totals: torch.Tensor = _LatticeScore.apply(logits, lattices)
    return totals


class _LatticeScore(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, lattices: Lattices) -> torch.Tensor:
        place = (lattices.sequence, lattices.frame, lattices.pdf)
        scores = logits.detach()[place].double()
        alphas = torch.empty_like(scores)
        for t, nodes, before, arcs in _frames(lattices):
            if t == 0:
                incoming = lattices.initial
            else:
                paths = alphas[before][lattices.source[arcs] - before.start]
                incoming = scatter_logsumexp(
                    paths + lattices.weight[arcs],
                    lattices.target[arcs] - nodes.start,
                    nodes.stop - nodes.start,
                )
            torch.add(incoming, scores[nodes], out=alphas[nodes])
        totals = scatter_logsumexp(alphas + lattices.final, lattices.sequence, lattices.batch)
        ctx.save_for_backward(alphas, scores, totals)
        ctx.lattices, ctx.shape, ctx.dtype = lattices, logits.shape, logits.dtype
        return totals

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        alphas, scores, totals = ctx.saved_tensors
        lattices = ctx.lattices
        betas = lattices.final.clone()
        for t, nodes, before, arcs in reversed(_frames(lattices)):
            if t == 0:
                continue
            targets = lattices.target[arcs] - nodes.start
            paths = (scores[nodes] + betas[nodes])[targets] + lattices.weight[arcs]
            onward = scatter_logsumexp(
                paths, lattices.source[arcs] - before.start, before.stop - before.start
            )
            betas[before] = torch.logaddexp(betas[before], onward)
        total = totals[lattices.sequence]
        posteriors = (alphas + betas - total).exp()
        posteriors = torch.where(total == -torch.inf, 0.0, posteriors)
        result = scores.new_zeros(ctx.shape)
        place = (lattices.sequence, lattices.frame, lattices.pdf)
        result.index_put_(place, posteriors * gradient[lattices.sequence], accumulate=True)
        return result.to(ctx.dtype), None


def _frames(lattices: Lattices) -> list[tuple[int, slice, slice, slice]]:
    """Return each frame with its nodes, the nodes of the frame before, and the arcs between."""
    nodes, arcs = lattices.nodes_before, lattices.arcs_before
    return [
        (
            t,
            slice(nodes[t], nodes[t + 1]),
            slice(nodes[max(t - 1, 0)], nodes[t]),
            slice(arcs[t], arcs[t + 1]),
        )
        for t in range(len(nodes) - 1)
    ]


def scatter_logsumexp(values: torch.Tensor, index: torch.Tensor, size: int) -> torch.Tensor:
    """Return ``(size,)``: the log of the sum of ``exp(values)`` at each index.

    Minus infinity where there is none; NaN stays NaN.
    """
    largest = values.new_full((size,), -torch.inf)
    largest = largest.scatter_reduce(0, index, values, "amax")
    shift = torch.where(largest == -torch.inf, 0.0, largest)
    total = torch.zeros_like(shift).index_add(0, index, (values - shift[index]).exp())
    return shift + total.log()
