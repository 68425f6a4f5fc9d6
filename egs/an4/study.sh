#!/usr/bin/env bash
# Both families on AN4 with several seeds, then their tables: every run, mean, spread, and whether systems
# differ from FP32 by more than chance. What is done is passed over, so that it can be cut off and
# started again at any time.
#
#   egs/an4/study.sh [--seeds "1 2 3"] [--recipes "hybrid1 asr1"] [--schemes "fp32 naive tailored"]
#       [--work DIR] [--python PYTHON] [--options "--OPTION VALUE..."]
#
# DIR (default exp/study here) gets RECIPE/{data,dump}, RECIPE/seed1..., RECIPE/results.json and
# RECIPE/table.txt. Data and features are made once; all training has the seed, the GMM's too. The encoder
# of the transducer starts from the hybrid's first FP32 network of the same seed, so asr1 comes second.
# Several at once, of other seeds: start the first alone until it trains, for they share data and features.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

seeds="1 2 3"
recipes="hybrid1 asr1"
schemes="fp32 naive tailored"
work=$here/exp/study
python=python3
options=""             # for every run.sh
help=$(sed -n '2,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}")
. "$here/../common/driver.sh"
parse_options "$@"
check_python
mkdir -p "$work"
. "$here/study_folders.sh"

# Where a system's text of the test part is, of every seed: texts RECIPE SYSTEM
texts() {
    local recipe=$1 system=$2 seed folder prefix inference
    names_of "$recipe"
    for seed in $seeds; do
        folder=$prefix$system/$inference
        [ "$system" = fp32 ] || folder+=_int4
        echo "$work/$recipe/seed$seed/$folder/test/text"
    done
}

for recipe in $recipes; do
    results=()
    for seed in $seeds; do
        exp=$work/$recipe/seed$seed
        log "$recipe, seed $seed: $exp"
        start=()
        if [ "$recipe" = asr1 ]; then
            encoder=$work/hybrid1/seed$seed/hybrid_fp32/valid.loss.ave.pth
            if [ ! -e "$encoder" ]; then
                echo "study.sh: no $encoder, which asr1 starts from; run hybrid1 first" >&2
                exit 1
            fi
            start=(--ctc_config "" --init_encoder "$encoder")
        fi
        run_study_recipe "$recipe" "$seed" "$schemes" --results "$exp/results.json" "${start[@]}"
        results+=("$exp/results.json")
    done
    {
        $python -m espnet_quant4.bin.main study --results "${results[@]}" \
            --output "$work/$recipe/results.json"
        for scheme in $schemes; do
            [ "$scheme" = fp32 ] && continue
            echo
            echo "$(system_of "$scheme") on codes against FP32, test:"
            # shellcheck disable=SC2046
            $python -m espnet_quant4.bin.main compare --reference "$work/$recipe/dump/raw/test/text" \
                --first $(texts "$recipe" fp32) --second $(texts "$recipe" "$(system_of "$scheme")")
        done
    } | tee "$work/$recipe/table.part"
    mv "$work/$recipe/table.part" "$work/$recipe/table.txt"
done
