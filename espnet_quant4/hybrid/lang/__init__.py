"""Words, phones and topology: what a decoding graph and an alignment are made of."""
