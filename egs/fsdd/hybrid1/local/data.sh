#!/usr/bin/env bash
# Stage 1: writes the data folders and the lexicon. Options besides --python go to local/data.py.
set -euo pipefail
python=python3
options=()
while [ $# -gt 0 ]; do
    if [ "$1" = --python ]; then python=$2; shift 2; else options+=("$1"); shift; fi
done
# shellcheck disable=SC2086
$python local/data.py "${options[@]}"
