#!/usr/bin/env bash
# Hybrid of a deep bidirectional LSTM and hidden Markov models on AN4 (16 kHz, 74 speakers, 42
# minutes): GMM and alignment, FP32, then 4-bit quantization-aware training, naive and tailored.
# ./run.sh --help lists stages and options.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

../../common/hybrid.sh --fs 16000 --speed_perturb_factors "0.9 1.0 1.1" \
    --realign true --realign_config conf/train_hybrid_realigned.yaml \
    --feats_type fbank --rescore_order 3 --acoustic_scale 0.2 --lm_scales "5 4 6 3 7 8 10" "$@"
