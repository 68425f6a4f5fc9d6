"""Decoders: the prediction network of the transducer."""
