"""4-bit quantization-aware training and INT4 inference for ESPnet's LSTM recognizers.

Importing the package makes its classes known to ESPnet's tasks, now or when they are imported
(see `espnet_quant4.hook`).  It imports nothing but the standard library.
"""

from espnet_quant4.hook import install as _install

__version__ = "0.1.0"

_install()
