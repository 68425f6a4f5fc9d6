#!/usr/bin/env bash
# What each part of the scheme `tailored` is worth, and what fewer bits cost: quantization-aware training
# of every variant in ablation.yaml from the FP32 systems of study.sh, decoded on codes, on dev. What is
# done is passed over, so that it can be cut off and started again at any time.
#
#   egs/an4/ablation.sh [--seeds "1 2 3"] [--recipes "hybrid1 asr1"] [--only "NAME..."] [--part dev]
#       [--variants FILE] [--work DIR] [--python PYTHON] [--options "--OPTION VALUE..."]
#
# DIR is that of study.sh (default exp/study here), and gets RECIPE/PART/ablation.json, ablation.txt,
# ablation.svg and size.svg. --part test is for what has been chosen on dev.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

seeds="1 2 3"
recipes="hybrid1 asr1"
only=""
part=dev
variants=$here/ablation.yaml
work=$here/exp/study
python=python3
options=""             # for every run.sh
help=$(sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}")
. "$here/../common/driver.sh"
parse_options "$@"
check_python
if [ ! -d "$work" ]; then echo "ablation.sh: no $work; egs/an4/study.sh makes it" >&2; exit 1; fi
. "$here/study_folders.sh"
variants=$(realpath "$variants")

for recipe in $recipes; do
    family=${recipe%1}
    names_of "$recipe"
    # shellcheck disable=SC2086
    lines=$($python -m espnet_quant4.bin.main variants --file "$variants" --family "$family" \
        ${only:+--only $only} --output "$work/$recipe/schemes")
    for seed in $seeds; do
        exp=$work/$recipe/seed$seed
        if [ ! -e "$exp/${prefix}fp32/valid.loss.ave.pth" ]; then
            echo "ablation.sh: no ${prefix}fp32 in $exp; egs/an4/study.sh trains it" >&2
            exit 1
        fi
        # Those that are trained with the same options go together, several at a time.
        while IFS= read -r arguments; do
            schemes=$(awk -v wanted="$arguments" '{
                scheme = $1; $1 = ""; sub(/^ /, ""); if ($0 == wanted) print scheme
            }' <<< "$lines" | tr '\n' ' ')
            log "$recipe, seed $seed: $schemes $arguments"
            rest=()
            # The quotes in a variant's arguments are for the shell.
            eval "rest=($arguments)"
            run_study_recipe "$recipe" "$seed" "fp32 $schemes" \
                --stage 11 --stop_stage 12 --test_sets "$part" --inferences int4 ${rest[@]+"${rest[@]}"}
        done < <(awk '{ $1 = ""; sub(/^ /, ""); print }' <<< "$lines" | sort -u)
    done
    tables=$work/$recipe/$part
    mkdir -p "$tables"
    # shellcheck disable=SC2086
    $python -m espnet_quant4.bin.main ablation --file "$variants" --family "$family" \
        ${only:+--only $only} --seeds $seeds --reference "$work/$recipe/dump/raw/$part/text" \
        --experiments "$work/$recipe/seed{seed}/$prefix{variant}" --part "$inference/$part" \
        --output "$tables/ablation.json" --figure "$tables/ablation.svg" \
        --size_figure "$tables/size.svg" | tee "$tables/ablation.part"
    mv "$tables/ablation.part" "$tables/ablation.txt"
done
