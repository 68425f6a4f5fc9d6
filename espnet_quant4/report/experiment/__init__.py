"""One HTML page about one experiment: what its quantizers do to its tensors."""
