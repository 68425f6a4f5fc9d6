#!/usr/bin/env bash
# RNN transducer on Switchboard-1 (300 hours, 8 kHz), through the asr.sh of the ESPnet checkout that
# ESPNET_ROOT names: FP32, then 4-bit quantization-aware training, naive and tailored; Hub5 2000 is
# scored as NIST does. ./run.sh --help lists stages and options, --dry_run true shows every command and
# what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. ../ldc.sh

../../common/asr.sh --fs 8000 --train_set train_nodup --valid_set train_dev \
    --test_sets "train_dev eval2000" --nlsyms_txt data/nlsyms.txt --audio_format flac \
    --speed_perturb_by asr.sh --speed_perturb_factors "1.1 0.9 1.0" \
    --ngpu 1 --nj 32 --stats_nj 32 --inference_nj 32 --ctc_config "" --calibration_batches 64 \
    --needs "--packages lhotse --programs hubscr.pl --folders $folders --room data=40 dump=60 exp=10" \
    --data_check_opts "--dry_run true" "$@"
