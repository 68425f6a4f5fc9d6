#!/usr/bin/env bash
# Stage 1: writes the data folders, as the transducer's recipe does, and the lexicon. Options besides
# --python go to both scripts.
set -euo pipefail
python=python3
options=()
while [ $# -gt 0 ]; do
    if [ "$1" = --python ]; then python=$2; shift 2; else options+=("$1"); shift; fi
done
$python ../asr1/local/data.py "${options[@]}"
$python local/lexicon.py "${options[@]}"
