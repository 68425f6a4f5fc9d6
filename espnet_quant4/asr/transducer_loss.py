"""The transducer loss (Graves, "Sequence Transduction with Recurrent Neural Networks", 2012).

Four implementations are chosen by name. Each returns the mean negative log-likelihood over the
batch, in nats; a missing package is an error when the model is built. The pruned loss of k2
evaluates the joint network only near the best alignment of a simpler model, hence a loss is handed
the joint network and its inputs, and not its output.
"""

from __future__ import annotations

import importlib

import torch

# name: (module that must import, how to install what provides it)
REQUIREMENTS = {
    "torchaudio": (
        "torchaudio.functional",
        "pip install torchaudio (of the release that fits the installed torch)",
    ),
    "k2": (
        "k2",
        "a wheel of k2 1.24 or newer for the installed torch, from the k2 project's own pages",
    ),
    "warprnnt": (
        "warprnnt_pytorch",
        "ESPnet's tools/installers/install_warp-transducer.sh (no package registry has it)",
    ),
    "numba": ("numba", "pip install numba"),
}


def build_transducer_loss(
    name: str, blank_id: int, vocab_size: int, encoder_size: int, decoder_size: int
) -> TransducerLoss:
    """Return the loss of that name.

    Args:
        name: ``torchaudio``, ``k2`` (pruned loss), ``warprnnt`` or ``numba`` (ESPnet's own).
        blank_id: id of the blank token.
        vocab_size: number of tokens, blank included.
        encoder_size: size of the encoder's output.
        decoder_size: size of the prediction network's output.

    Raises:
        ValueError: for an unknown name.
        ImportError: where the package is missing or broken; says how to install it.
    """
    if name not in REQUIREMENTS:
        raise ValueError(
            f"model_conf: transducer_loss: {name!r}; valid choices are {', '.join(REQUIREMENTS)}."
        )
    module, installation = REQUIREMENTS[name]
    try:
        importlib.import_module(module)
    except (ImportError, OSError) as error:
        raise ImportError(
            f"model_conf: transducer_loss: {name} needs {module}, which cannot be imported "
            f"({error}). Install it: {installation}; or choose another: {', '.join(REQUIREMENTS)}."
        ) from error
    if name == "k2":
        return PrunedTransducerLoss(blank_id, vocab_size, encoder_size, decoder_size)
    return {
        "torchaudio": TorchaudioTransducerLoss,
        "warprnnt": WarpTransducerLoss,
        "numba": NumbaTransducerLoss,
    }[name](blank_id)


class TransducerLoss(torch.nn.Module):
    """Base of losses that need the joint network's output everywhere."""

    def __init__(self, blank_id: int):
        super().__init__()
        self.blank_id = blank_id

    def forward(
        self,
        joint_network: torch.nn.Module,
        encoder_out: torch.Tensor,
        decoder_out: torch.Tensor,
        targets: torch.Tensor,
        encoder_out_lens: torch.Tensor,
        target_lengths: torch.Tensor,
    ) -> torch.Tensor:
        """Return the mean negative log-likelihood, a scalar in nats.

        Args:
            joint_network: maps encoder states ``(B, T, 1, D_enc)`` and decoder states
                ``(B, 1, U + 1, D_dec)`` to logits ``(B, T, U + 1, V)``.
            encoder_out: ``(B, T, D_enc)``.
            decoder_out: ``(B, U + 1, D_dec)``.
            targets: ``(B, U)`` int32 token ids.
            encoder_out_lens: ``(B,)`` int32.
            target_lengths: ``(B,)`` int32.
        """
        logits = joint_network(encoder_out.unsqueeze(2), decoder_out.unsqueeze(1))
        return self.from_logits(
            logits.float().contiguous(),
            targets.int().contiguous(),
            encoder_out_lens.int().contiguous(),
            target_lengths.int().contiguous(),
        )

    def from_logits(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        logit_lengths: torch.Tensor,
        target_lengths: torch.Tensor,
    ) -> torch.Tensor:
        """Return the mean loss of logits ``(B, T, U + 1, V)`` float32; the rest as in `forward`."""
        raise NotImplementedError


class TorchaudioTransducerLoss(TransducerLoss):
    """``torchaudio.functional.rnnt_loss``."""

    def from_logits(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        logit_lengths: torch.Tensor,
        target_lengths: torch.Tensor,
    ) -> torch.Tensor:
        from torchaudio.functional import rnnt_loss

        return rnnt_loss(
            logits, targets, logit_lengths, target_lengths, blank=self.blank_id, reduction="mean"
        )


class WarpTransducerLoss(TransducerLoss):
    """``warprnnt_pytorch.RNNTLoss``, which ESPnet's own transducer model uses."""

    def __init__(self, blank_id: int):
        super().__init__(blank_id)
        from warprnnt_pytorch import RNNTLoss

        self.loss = RNNTLoss(blank=blank_id, fastemit_lambda=0.0)

    def from_logits(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        logit_lengths: torch.Tensor,
        target_lengths: torch.Tensor,
    ) -> torch.Tensor:
        return self.loss(logits, targets, logit_lengths, target_lengths).squeeze()


class NumbaTransducerLoss(TransducerLoss):
    """ESPnet's own loss in numba."""

    def __init__(self, blank_id: int):
        super().__init__(blank_id)
        from espnet2.asr.transducer.rnnt_multi_blank.rnnt_multi_blank import RNNTLossNumba

        self.loss = RNNTLossNumba(blank=blank_id, reduction="mean")

    def from_logits(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        logit_lengths: torch.Tensor,
        target_lengths: torch.Tensor,
    ) -> torch.Tensor:
        return self.loss(logits, targets, logit_lengths, target_lengths).squeeze()


class PrunedTransducerLoss(TransducerLoss):
    """k2's pruned loss (Kuang et al., "Pruned RNN-T for fast, memory-efficient ASR training", 2022).

    A simple joint of two linear layers finds, for every frame, the ``PRUNE_RANGE`` target positions
    worth looking at; the joint network is evaluated there only. Both losses are summed, the simple
    one with weight ``SIMPLE_LOSS_WEIGHT``, as the paper's recipes do.
    """

    PRUNE_RANGE = 5
    SIMPLE_LOSS_WEIGHT = 0.5

    def __init__(self, blank_id: int, vocab_size: int, encoder_size: int, decoder_size: int):
        super().__init__(blank_id)
        self.simple_encoder = torch.nn.Linear(encoder_size, vocab_size)
        self.simple_decoder = torch.nn.Linear(decoder_size, vocab_size)

    def forward(
        self,
        joint_network: torch.nn.Module,
        encoder_out: torch.Tensor,
        decoder_out: torch.Tensor,
        targets: torch.Tensor,
        encoder_out_lens: torch.Tensor,
        target_lengths: torch.Tensor,
    ) -> torch.Tensor:
        import k2

        targets = targets.long()
        boundary = torch.zeros(targets.size(0), 4, dtype=torch.int64, device=targets.device)
        boundary[:, 2] = target_lengths
        boundary[:, 3] = encoder_out_lens
        simple_loss, (towards_symbols, towards_frames) = k2.rnnt_loss_smoothed(
            lm=self.simple_decoder(decoder_out).float(),
            am=self.simple_encoder(encoder_out).float(),
            symbols=targets,
            termination_symbol=self.blank_id,
            boundary=boundary,
            reduction="mean",
            return_grad=True,
        )
        ranges = k2.get_rnnt_prune_ranges(
            px_grad=towards_symbols,
            py_grad=towards_frames,
            boundary=boundary,
            s_range=min(self.PRUNE_RANGE, decoder_out.size(1)),
        )
        encoder_near, decoder_near = k2.do_rnnt_pruning(
            am=encoder_out, lm=decoder_out, ranges=ranges
        )
        pruned_loss = k2.rnnt_loss_pruned(
            logits=joint_network(encoder_near, decoder_near).float(),
            symbols=targets,
            ranges=ranges,
            termination_symbol=self.blank_id,
            boundary=boundary,
            reduction="mean",
        )
        return self.SIMPLE_LOSS_WEIGHT * simple_loss + pruned_loss
