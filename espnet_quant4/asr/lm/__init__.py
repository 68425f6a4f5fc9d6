"""Language models with quantized LSTMs."""
