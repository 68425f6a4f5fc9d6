#!/usr/bin/env bash
# Hybrid of a deep bidirectional LSTM and hidden Markov models on Switchboard-1 (300 hours, 8 kHz): data
# through the asr.sh of the ESPnet checkout that ESPNET_ROOT names, GMM and alignment, or those of your
# own Kaldi (--kaldi_ali, --graph), FP32, then 4-bit quantization-aware training, naive and tailored.
# ./run.sh --help lists stages and options, --dry_run true shows every command and what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. ../ldc.sh

../../common/hybrid.sh --fs 8000 --test_sets "dev eval2000" --data_by asr.sh --audio_format flac \
    --lang_args "--unknown_word <unk>" --lm_order 3 --leaves 32000 --gaussians 400000 \
    --feats_type fbank --num_mels 40 --ngpu 1 --nj 32 --nist_sets "eval2000" \
    --needs "--packages lhotse --programs hubscr.pl --folders $folders --room data=40 dump=60 exp=40" \
    --data_check_opts "--dry_run true" "$@"
