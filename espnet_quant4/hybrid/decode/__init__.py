"""Search in a decoding graph, n-best lists and their rescoring."""
