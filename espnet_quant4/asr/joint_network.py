"""The transducer's joint network with quantized linear layers."""

from typing import Any

from espnet2.asr_transducer.joint_network import JointNetwork

from espnet_quant4.nn import QuantLinear


class QuantJointNetwork(JointNetwork):
    """ESPnet's joint network; its three linear layers can be quantized.

    Takes the arguments of ``espnet2.asr_transducer.joint_network.JointNetwork`` and has its
    parameter names.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lin_enc = QuantLinear.from_float(self.lin_enc)
        self.lin_dec = QuantLinear.from_float(self.lin_dec)
        self.lin_out = QuantLinear.from_float(self.lin_out)
