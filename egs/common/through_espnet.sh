# The transducer recipes through ESPnet's own asr.sh, from the checkout that ESPNET_ROOT names: asr.sh
# for every stage that it has, and between its passes what it has no stage for, calibration and the
# conversion to INT4. Sourced by asr.sh of this folder, whose options these functions read.

. "$common/espnet_passes.sh"

own_options=(--asr_stats_dir "$expdir/asr_stats_raw_char" --inference_asr_model "$inference_asr_model")
tokens=data/token_list/char/tokens.txt

# Trains through asr.sh: train_through_espnet CONFIG OUTPUT "OPTION..." [INITIAL_MODEL]
train_through_espnet() {
    local config=$1 output=$2 options=$3 start=${4:-}
    if [ -e "$output/$inference_asr_model" ]; then log "$output: trained already"; return 0; fi
    espnet 11 11 --asr_config "$config" --asr_exp "$output" --asr_args "--seed $seed $options" \
        --pretrained_model "$start"
}

# Has ESPnet write config.yaml, all data and options in it, and stop: configure_through_espnet CONFIG
# OUTPUT "OPTION..."
configure_through_espnet() {
    espnet 11 11 --asr_config "$1" --asr_exp "$2" --asr_args "--seed $seed --dry_run true $3"
}

# The FP32 pass: trained, or taken from pretrained/.
float_through_espnet() {
    local fp32=$expdir/asr_fp32 start=""
    if [ "$from_scratch" = false ]; then
        check_pretrained "$tokens"
        if ! cmp -s "$pretrained/fp32.pth" "$fp32/$inference_asr_model"; then
            log "$fp32: taken from $pretrained/fp32.pth"
            configure_through_espnet "$asr_config" "$fp32" ""
            run cp "$pretrained/fp32.pth" "$fp32/$inference_asr_model"
        fi
        return 0
    fi
    if [ -n "$ctc_config" ]; then
        train_through_espnet "$ctc_config" "$expdir/asr_ctc" "$asr_args"
        start=$expdir/asr_ctc/$inference_asr_model
    fi
    train_through_espnet "$asr_config" "$fp32" "$asr_args" "$start"
}

# The pass of a quantized system: its config.yaml from asr.sh, calibration from that, training.
quantized_through_espnet() {
    local scheme=$1 system output fp32=$expdir/asr_fp32/$inference_asr_model
    system=$(system_of "$scheme")
    output=$expdir/asr_$system
    take_scheme "$scheme" "$output"
    if [ ! -e "$output/calibrated.pth" ]; then
        configure_through_espnet "$qat_config" "$output" "--model_conf scheme=$output/scheme.yaml"
        log "$output: calibration (log: $output/calibrate.log)"
        # shellcheck disable=SC2086
        logged $train_cmd "$output/calibrate.log" $python -m espnet_quant4.bin.main calibrate \
            --config "$output/config.yaml" --init_param "$fp32" \
            --batches "$calibration_batches" --output "$output/calibrated.pth"
    fi
    train_through_espnet "$qat_config" "$output" \
        "--model_conf scheme=$output/scheme.yaml $asr_args $qat_args" "$output/calibrated.pth"
}

# Decodes and scores a system in one way: score_through_espnet SYSTEM INFERENCE
score_through_espnet() {
    local output=$expdir/asr_$1 inference=$2 name part first=13
    name=$(basename "${inference_config%.yaml}")
    if [ "$inference" = int4 ]; then
        name+=_int4
        if doing 12; then convert_to_int4 "$output"; fi
    fi
    for part in $(decoded_parts); do
        [ "$output/$name/$part/text" -nt "$output/$inference_asr_model" ] || first=12
    done
    if doing 12 && [ $first = 13 ]; then log "$output/$name: decoded already"; fi
    # One thread a job: the jobs are the parallel part.
    OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 ESPNET_QUANT4_INFERENCE=$inference \
        espnet $first 13 --asr_exp "$output" --inference_config "$inference_config" \
        --inference_tag "$name"
}

# The parts under a decoding's folder; asr.sh has the validation set's unfiltered form under org/.
decoded_parts() {
    local part
    for part in $test_sets; do
        if [ "$part" = "$valid_set" ]; then echo "org/$part"; else echo "$part"; fi
    done
}

through_espnet() {
    local scheme system inference
    prepare_through_espnet 5
    if doing 5; then order_tokens "$tokens"; fi
    # Sums of several jobs differ in their last bits from those of one.
    nj=$stats_nj espnet 10 10 --asr_config "$asr_config" --asr_args "--seed $seed"
    if doing 11; then
        float_through_espnet
        for scheme in $schemes; do
            [ "$(system_of "$scheme")" = fp32 ] || quantized_through_espnet "$scheme"
        done
    fi
    for scheme in $schemes; do
        system=$(system_of "$scheme")
        for inference in $(inferences_of "$system"); do score_through_espnet "$system" "$inference"; done
    done
    if doing 13; then
        # shellcheck disable=SC2046
        tabulate $(decoded_parts)
    fi
    for scheme in $schemes; do
        system=$expdir/asr_$(system_of "$scheme")
        # asr.sh packs the training's plots, which there are none of without use_matplotlib.
        if doing 14; then run mkdir -p "$system/images"; fi
        espnet 14 14 --asr_exp "$system" --skip_packing false
    done
}
