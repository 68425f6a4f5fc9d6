"""The transducer's joint network with quantized linear layers."""

from typing import Any

import torch
from espnet2.asr_transducer.joint_network import JointNetwork

from espnet_quant4.nn import QuantLinear


class QuantJointNetwork(JointNetwork):
    """ESPnet's joint network; its three linear layers can be quantized.

    Takes the arguments of ``espnet2.asr_transducer.joint_network.JointNetwork`` and has its
    parameter names.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        quantize_joint_network(self)


def quantize_joint_network(joint_network: torch.nn.Module) -> None:
    """Put quantized layers, with the same parameters, in the place of a joint network's float ones."""
    for name in ("lin_enc", "lin_dec", "lin_out"):
        setattr(joint_network, name, QuantLinear.from_float(getattr(joint_network, name)))
