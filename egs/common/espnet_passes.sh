# Passes of ESPnet's own asr.sh, from the checkout that ESPNET_ROOT names. Sourced by asr.sh and hybrid.sh
# of this folder, whose options these functions read.

inference_nj=${inference_nj:-$nj}
# What the driver that sources this adds to every pass.
own_options=()

# One pass of ESPnet's asr.sh: espnet FIRST_STAGE LAST_STAGE OPTION... Options that every pass has come
# last; a dry run shows them once.
espnet() {
    local first=$1 last=$2 options
    shift 2
    # shellcheck disable=SC2206
    options=(--python "$python" --ngpu "$ngpu" --num_nodes "$num_nodes" --nj "$nj"
        --inference_nj "$inference_nj" --dumpdir "$dumpdir" --expdir "$expdir" --fs "$fs"
        --feats_type raw --audio_format "$audio_format" --min_wav_duration "$min_wav_duration"
        --max_wav_duration "$max_wav_duration" --token_type char --nlsyms_txt "$nlsyms_txt"
        --use_lm false --train_set "$train_set" --valid_set "$valid_set" --test_sets "$test_sets"
        ${own_options[@]+"${own_options[@]}"} $espnet_args)
    if [ "$dry_run" = true ] && [ "$first" -gt 1 ]; then options=("[as in stage 1]"); fi
    stages "$first" "$last" logged ./asr.sh "$@" "${options[@]}"
}

# Those of the stages FIRST to LAST that are wanted: runs the command with --stage and --stop_stage.
# A dry run shows it stage by stage.
stages() {
    local first=$1 last=$2 number
    shift 2
    [ "$first" -lt "$stage" ] && first=$stage
    [ "$last" -gt "$stop_stage" ] && last=$stop_stage
    [ "$first" -gt "$last" ] && return 0
    if [ "$dry_run" = false ]; then
        "$@" --stage "$first" --stop_stage "$last"
        return
    fi
    for number in $(seq "$first" "$last"); do
        # Language models, which these recipes do without.
        case $number in 6|7|8|9) continue ;; esac
        log "stage $number of asr.sh"
        "$@" --stage "$number" --stop_stage "$number"
    done
}

# Data: asr.sh's stages 1 to 4, and LAST if more; leaves the name of what is trained on in $train_set.
prepare_through_espnet() {
    local last=$1 sp=()
    if [ "$datadir" != data ]; then
        echo "run.sh: --datadir $datadir: asr.sh of ESPnet writes data/ in the recipe's folder" >&2
        exit 2
    fi
    if [ "$speed_perturb_by" = asr.sh ] && [ -n "$speed_perturb_factors" ]; then
        sp=(--speed_perturb_factors "$speed_perturb_factors")
    fi
    espnet 1 1 --local_data_opts "--python $python $local_data_opts"
    if doing 2 && [ "$speed_perturb_by" = soxr ] && [ -n "$speed_perturb_factors" ]; then
        # shellcheck disable=SC2086
        run $python "$common/prepare.py" perturb "data/$train_set" "data/${train_set}_sp" --fs "$fs" \
            --factors $speed_perturb_factors
    fi
    if [ "$speed_perturb_by" = asr.sh ]; then espnet 2 "$last" "${sp[@]}"; fi
    [ -n "$speed_perturb_factors" ] && train_set+=_sp
    if [ "$speed_perturb_by" = soxr ]; then espnet 3 "$last"; fi
}
