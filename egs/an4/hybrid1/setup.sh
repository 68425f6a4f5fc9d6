#!/usr/bin/env bash
# Links asr.sh, scripts, pyscripts, utils and steps of the ESPnet checkout that ESPNET_ROOT names;
# run.sh does so by itself.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
../../common/setup_espnet.sh .
