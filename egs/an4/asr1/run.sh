#!/usr/bin/env bash
# RNN transducer on AN4 (16 kHz, 74 speakers, 42 minutes): FP32, then 4-bit quantization-aware
# training, naive and tailored. ./run.sh --help lists stages and options.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# ESPnet's asr.sh reads waveforms, the other way normalizes features by speaker, which is better here.
if [ -n "${ESPNET_ROOT:-}" ]; then feats=(--feats_type raw --asr_args "--batch_bins 240000")
else feats=(--feats_type fbank); fi

../../common/asr.sh --fs 16000 "${feats[@]}" "$@"
