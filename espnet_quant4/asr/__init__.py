"""RNN transducers as ESPnet sees them: encoders, decoder, joint network, loss, LM and model."""
