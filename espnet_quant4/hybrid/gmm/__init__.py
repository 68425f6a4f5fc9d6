"""GMM-HMM that gives a network its context-dependent states and alignments."""
