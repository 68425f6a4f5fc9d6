"""What a hybrid model is trained for: the right state at each frame, or the right sequence."""

from __future__ import annotations

from typing import Any

import torch

from espnet_quant4.hybrid.model.frame_targets import IGNORE_ID

CRITERIA = ("ce", "lfmmi")


class HybridCriterion(torch.nn.Module):
    """Frame cross-entropy, or LF-MMI with some cross-entropy added.

    The two are summed at one output layer (Su et al., "Error back propagation for sequence training of
    context-dependent deep networks", 2013: F-smoothing), which keeps sequence training near the
    alignment.

    Args:
        criterion: ``ce`` or ``lfmmi``.
        label_smoothing: probability that is spread over all pdf ids, in training.
        lfmmi_conf: arguments of ``espnet_quant4.hybrid.lfmmi.build_lfmmi_loss``.
        ce_weight: of the cross-entropy beside LF-MMI.

    Raises:
        ValueError: for an option that is not valid.
    """

    def __init__(
        self,
        criterion: str = "ce",
        label_smoothing: float = 0.0,
        lfmmi_conf: dict[str, Any] | None = None,
        ce_weight: float = 0.1,
    ):
        super().__init__()
        if criterion not in CRITERIA:
            raise ValueError(f"model_conf: criterion: {criterion!r}; valid: {', '.join(CRITERIA)}.")
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                f"model_conf: label_smoothing: {label_smoothing}; valid are 0 and above, below 1."
            )
        if ce_weight < 0:
            raise ValueError(f"model_conf: ce_weight: {ce_weight}; valid are 0 and above.")
        if criterion == "lfmmi" and not lfmmi_conf:
            raise ValueError(
                "model_conf: criterion: lfmmi needs lfmmi_conf: {denominator: den.fst}, the graph that "
                "python -m espnet_quant4.bin.hybrid_denominator makes."
            )
        self.criterion = criterion
        self.label_smoothing = label_smoothing
        self.lfmmi_conf = lfmmi_conf or {}
        self.ce_weight = ce_weight
        self._lfmmi: list[torch.nn.Module] = []

    @property
    def is_sequential(self) -> bool:
        """Whether the loss is about sequences, and not single frames."""
        return self.criterion != "ce"

    def forward(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        scored: torch.Tensor,
        lengths: torch.Tensor,
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """Compute the loss.

        Args:
            logits: ``(frames, num_pdfs)`` float32, of the frames that have a target, utterance by
                utterance.
            targets: ``(B, T)`` int64.
            scored: ``(B, T)`` bool: which frames have a target.
            lengths: ``(B,)`` int64.

        Returns:
            The mean over frames, a scalar in nats, and statistics.
        """
        cross_entropy = torch.nn.functional.cross_entropy(
            logits,
            targets[scored],
            ignore_index=IGNORE_ID,
            label_smoothing=self.label_smoothing if self.training else 0.0,
        )
        if not self.is_sequential:
            return cross_entropy, {}
        padded = logits.new_zeros(*targets.shape, logits.size(1))
        padded = padded.masked_scatter(scored.unsqueeze(2), logits)
        loss, stats = self._lfmmi_for(logits)(padded, lengths, targets)
        return (
            loss + self.ce_weight * cross_entropy,
            {**stats, "loss_lfmmi": loss.detach(), "loss_ce": cross_entropy.detach()},
        )

    def _lfmmi_for(self, logits: torch.Tensor) -> torch.nn.Module:
        """Return the loss, which is built when training first needs it.

        A trained model is loaded without the denominator graph, and saved without it: in a list,
        for a module would become part of the checkpoint.
        """
        if not self._lfmmi:
            from espnet_quant4.hybrid.lfmmi import build_lfmmi_loss

            # A graph may lack the last pdf ids.
            conf = {"num_pdfs": logits.size(1), **self.lfmmi_conf}
            self._lfmmi.append(build_lfmmi_loss(**conf).to(logits.device))
        return self._lfmmi[0]
