"""Array kernels of the quantized LSTM: a plain definition, and fast forms that must equal it."""
