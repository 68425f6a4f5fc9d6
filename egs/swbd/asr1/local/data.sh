#!/usr/bin/env bash
# Stage 1: writes the data folders train_nodup, train_dev and eval2000 from the LDC's folders below
# $SWBD (db.sh). Options besides --python are those of espnet_quant4.bin.prepare_switchboard, among
# them --fisher, --rt03, --transcripts, --speakers and --audio; --help lists all.
set -eo pipefail
python=python3
options=()
while [ $# -gt 0 ]; do
    if [ "$1" = --python ]; then python=$2; shift 2; else options+=("$1"); shift; fi
done
# A recipe's db.sh says SWBD= where its user has entered nothing; the environment's then counts.
corpora=${SWBD:-}
if [ -e ./db.sh ]; then . ./db.sh; fi
corpora=${SWBD:-$corpora}
if [ -e ./path.sh ]; then . ./path.sh; fi
if [ -n "$corpora" ]; then options=(--corpora "$corpora" "${options[@]}"); fi
# shellcheck disable=SC2086
$python -m espnet_quant4.bin.prepare_switchboard "${options[@]}"
