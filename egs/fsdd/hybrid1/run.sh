#!/usr/bin/env bash
# Hybrid of a deep bidirectional LSTM and hidden Markov models on strings of digits made from the Free
# Spoken Digit Dataset (8 kHz; the strings are artificial, see README.md): GMM and alignment, FP32,
# then 4-bit quantization-aware training, naive and tailored. ./run.sh --help lists stages and options.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# Every digit may follow every other one: a unigram, which learns nothing from the made-up order.
../../common/hybrid.sh --fs 8000 --feats_type fbank --lm_order 1 --test_sets "dev test test_unseen" "$@"
