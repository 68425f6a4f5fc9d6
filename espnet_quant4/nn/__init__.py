"""Drop-in replacements of ``torch.nn`` layers that quantize their weights and inputs.

With no quantizer set they compute what the float layer computes, and their parameters have its
names. ``espnet_quant4.scheme.apply_scheme`` sets the quantizers.
"""

from espnet_quant4.nn.bounds import bound_of_activation
from espnet_quant4.nn.embedding import QuantEmbedding
from espnet_quant4.nn.linear import QuantLinear
from espnet_quant4.nn.lstm import QuantLSTM

__all__ = ["QuantEmbedding", "QuantLSTM", "QuantLinear", "bound_of_activation"]
