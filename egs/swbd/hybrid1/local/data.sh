#!/usr/bin/env bash
# Stage 1: writes train, dev and eval2000 with a file for each utterance, and the lexicon
# data/local/dict/lexicon.txt; see ../asr1/local/data.sh, which takes the same options.
set -euo pipefail
"$(dirname "${BASH_SOURCE[0]}")/../../asr1/local/data.sh" \
    --segments false --train_set train --dev_set dev "$@"
