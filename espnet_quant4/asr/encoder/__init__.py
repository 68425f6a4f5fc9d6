"""Encoders: ESPnet's RNN encoders with quantized LSTMs."""
