#!/usr/bin/env bash
# RNN transducer on the Asterisk prompts (8 kHz, one speaker, 25 minutes): FP32, then 4-bit
# quantization-aware training, naive and tailored. ./run.sh --help lists stages and options.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

../../common/asr.sh --fs 8000 "$@"
