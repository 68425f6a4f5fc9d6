"""The transducer's joint network with quantized linear layers."""

from collections.abc import Callable
from typing import Any

import torch
from espnet2.asr_transducer.joint_network import JointNetwork

from espnet_quant4.nn import QuantLinear, bound_of_activation

OPERATIONS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "add": torch.add,
    "multiply": torch.mul,
}


class QuantJointNetwork(JointNetwork):
    """ESPnet's joint network; its three linear layers can be quantized.

    Takes the arguments of ``espnet2.asr_transducer.joint_network.JointNetwork`` and has its
    parameter names.

    Args:
        args: ESPnet's.
        joint_operation: ``add``, ESPnet's, or ``multiply``: the two projections are multiplied
            element by element (Saon et al., "Advancing RNN Transducer Technology for Speech
            Recognition", 2021).
        kwargs: ESPnet's.

    Raises:
        ValueError: for another operation.
    """

    def __init__(self, *args: Any, joint_operation: str = "add", **kwargs: Any) -> None:
        if joint_operation not in OPERATIONS:
            raise ValueError(
                f"joint_net_conf: joint_operation: {joint_operation!r}; valid: "
                f"{', '.join(OPERATIONS)}."
            )
        super().__init__(*args, **kwargs)
        self.operation = OPERATIONS[joint_operation]
        quantize_joint_network(self)

    def forward(
        self, enc_out: torch.Tensor, dec_out: torch.Tensor, no_projection: bool = False
    ) -> torch.Tensor:
        """Join encoder and prediction network.

        Args:
            enc_out: ``(B, T, 1, D_enc)`` float32, or projected already.
            dec_out: ``(B, 1, U, D_dec)`` float32, or projected already.
            no_projection: whether they are.

        Returns:
            Logits ``(B, T, U, tokens)``.
        """
        if not no_projection:
            enc_out, dec_out = self.lin_enc(enc_out), self.lin_dec(dec_out)
        logits: torch.Tensor = self.lin_out(self.joint_activation(self.operation(enc_out, dec_out)))
        return logits


def quantize_joint_network(joint_network: torch.nn.Module) -> None:
    """Put quantized layers, with the same parameters, in the place of a joint network's float ones."""
    for name in ("lin_enc", "lin_dec", "lin_out"):
        setattr(joint_network, name, QuantLinear.from_float(getattr(joint_network, name)))
    activation = getattr(joint_network, "joint_activation", None)
    joint_network.lin_out.reads(bound=bound_of_activation(activation))
