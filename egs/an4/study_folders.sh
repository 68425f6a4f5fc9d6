# What study.sh and ablation.sh share: their folder, and how recipes call what they leave in it. Sourced
# after their options are known: $work, which is there.

work=$(cd "$work" && pwd)
# The plain driver, whose folders may be anywhere.
unset ESPNET_ROOT

# Sets how a recipe's systems and their decodings are called: $prefix$SYSTEM/$inference
names_of() {
    case $1 in
        asr1) prefix=asr_ inference=decode_asr ;;
        hybrid1) prefix=hybrid_realigned_ inference=decode_hybrid ;;
    esac
}

# Runs a recipe of the study: run_study_recipe RECIPE SEED SCHEMES OPTION...
run_study_recipe() {
    local recipe=$1 seed=$2 schemes=$3
    shift 3
    # shellcheck disable=SC2086,SC2154
    "$here/$recipe/run.sh" --python "$python" --seed "$seed" --schemes "$schemes" \
        --datadir "$work/$recipe/data" --dumpdir "$work/$recipe/dump" \
        --expdir "$work/$recipe/seed$seed" "$@" $options
}
