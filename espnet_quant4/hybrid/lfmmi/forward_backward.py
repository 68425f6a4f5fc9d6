"""Forward-backward over one hidden Markov model for all sequences of a batch.

Probabilities are multiplied by sparse matrices and scaled at each frame, as in Kaldi's
``chain/chain-denominator.cc`` (Rabiner, "A tutorial on hidden Markov models", 1989, section V.A):
an addition of logarithms would cost an exponential an arc. Inside all is float64, so that only a
path that is 700 nats worse than another one at the same frame is lost; in float32 it would be 87.
"""

from __future__ import annotations

from typing import Any

import torch

from espnet_quant4.hybrid.lfmmi.state_graph import StateGraph, sparse_matrices

Csr = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
MATRICES = ("leave", "enter", "leave_transposed", "enter_transposed")


class TotalScore(torch.nn.Module):
    """Log of the summed probability of all paths through a graph; differentiable.

    Args:
        graph: the hidden Markov model. It is kept in buffers, outside of the state dict.
    """

    def __init__(self, graph: StateGraph) -> None:
        super().__init__()
        for name in ("pdfs", "initial", "final"):
            self.register_buffer(name, getattr(graph, name), persistent=False)
        # Parts of matrices, since not everything that is done with buffers can do sparse ones.
        for name in MATRICES:
            base, _, transposed = name.partition("_")
            matrix = getattr(graph, base)
            matrix = (matrix.t() if transposed else matrix).coalesce()
            for part, tensor in zip("pcv", _compress(matrix), strict=True):
                self.register_buffer(f"_{name}_{part}", tensor, persistent=False)

    def forward(self, logits: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the totals.

        Args:
            logits: ``(B, T, P)`` float, logarithms of scores; padding may hold anything.
            lengths: ``(B,)`` int64, each from 1 to T.

        Returns:
            ``(B,)`` float64, in nats; minus infinity where no path has that length.
        """
        matrices = [self._matrix(name) for name in MATRICES]
        totals: torch.Tensor = _TotalScore.apply(
            logits, lengths.to(logits.device), self.pdfs, self.initial, self.final, matrices
        )
        return totals

    def _matrix(self, name: str) -> torch.Tensor:
        pointers, columns, values = (getattr(self, f"_{name}_{part}") for part in "pcv")
        states, nodes = len(self.pdfs), len(self._enter_p) - 1
        size = nodes if name in ("leave", "enter_transposed") else states
        with sparse_matrices():
            return torch.sparse_csr_tensor(pointers, columns, values, (len(pointers) - 1, size))


def _compress(matrix: torch.Tensor) -> Csr:
    """Return row pointers, columns and values of a coalesced COO matrix."""
    rows, columns = matrix.indices()
    pointers = torch.zeros(matrix.size(0) + 1, dtype=torch.int64)
    pointers[1:] = torch.bincount(rows, minlength=matrix.size(0)).cumsum(0)
    return pointers, columns.contiguous(), matrix.values().contiguous()


class _TotalScore(torch.autograd.Function):
    """Inside, time stands first and the batch last: ``(T, S, B)``."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        lengths: torch.Tensor,
        pdfs: torch.Tensor,
        initial: torch.Tensor,
        final: torch.Tensor,
        matrices: list[torch.Tensor],
    ) -> torch.Tensor:
        _, _, leave_transposed, enter_transposed = matrices
        batch, frames, _ = logits.shape
        time = torch.arange(frames, device=logits.device).unsqueeze(1)
        inside = time < lengths  # (T, B)
        scores = logits.detach().double().permute(1, 2, 0)
        scores = scores.masked_fill(~inside.unsqueeze(1), 0.0).contiguous()
        largest = scores.amax(1)
        emissions = scores.sub_(largest.unsqueeze(1)).exp_()
        alphas = emissions.new_empty(frames, len(pdfs), batch)
        scales = emissions.new_empty(frames, batch)
        state = initial.unsqueeze(1).expand(-1, batch)
        for t in range(frames):
            if t:
                state = enter_transposed @ (leave_transposed @ state)
            state = state * emissions[t].index_select(0, pdfs)
            scales[t] = state.sum(0)
            state = torch.div(state, _nonzero(scales[t]), out=alphas[t])
        last = alphas.permute(2, 0, 1)[torch.arange(batch, device=lengths.device), lengths - 1]
        log_scales = (scales.log() + largest).masked_fill(~inside, 0.0)
        ctx.save_for_backward(alphas, emissions, lengths, pdfs, final)
        ctx.matrices, ctx.dtype = matrices, logits.dtype
        return log_scales.sum(0) + (last @ final).log()

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        alphas, emissions, lengths, pdfs, final = ctx.saved_tensors
        leave, enter, _, _ = ctx.matrices
        frames, pdf_count, batch = emissions.shape
        posteriors = emissions.new_zeros(frames, pdf_count, batch)
        end = final.unsqueeze(1).expand(-1, batch)
        beta = end
        for t in range(frames - 1, -1, -1):
            if t < frames - 1:
                beta = leave @ (enter @ (beta * emissions[t + 1].index_select(0, pdfs)))
                beta = beta / _nonzero(beta.amax(0))
                beta = torch.where(lengths - 1 == t, end, beta)
            state = alphas[t] * beta
            state = state / _nonzero(state.sum(0))
            posteriors[t].index_add_(0, pdfs, state)
        inside = torch.arange(frames, device=lengths.device).unsqueeze(1) < lengths
        posteriors.mul_(torch.where(inside, gradient, 0.0).unsqueeze(1))
        result = posteriors.permute(2, 0, 1).to(ctx.dtype)
        return result.masked_fill(~inside.t().unsqueeze(2), 0.0), None, None, None, None, None


def _nonzero(scale: torch.Tensor) -> torch.Tensor:
    return torch.where(scale == 0, torch.ones_like(scale), scale)
