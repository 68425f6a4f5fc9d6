"""Grammars and decoding graphs: n-grams, G, and HCLG as Kaldi's ``mkgraph.sh`` makes it."""
