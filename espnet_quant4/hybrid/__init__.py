"""Hybrid systems: a deep bidirectional LSTM that scores the states of a hidden Markov model."""
