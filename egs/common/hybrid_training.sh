# Training of the hybrid recipes' networks. Sourced by hybrid.sh, whose options these functions read.

# All that trainings and statistics have in common: data_options ALIGNMENT.
data_options() {
    local ali=$1 part kind
    echo "--num_pdfs $ali/$train_set/num_pdfs"
    input_options
    for part in train:$train_set valid:dev; do
        kind=${part%:*} part=${part#*:}
        echo "--${kind}_data_path_and_name_and_type $(speech_of "$part")"
        echo "--${kind}_data_path_and_name_and_type $ali/$part/pdf_ids,pdf_ids,text_int"
    done
}

# Experiments are PREFIX_SYSTEM.
prefix=$expdir/hybrid
[ "$realign" = true ] && prefix+=_realigned
[ "$criterion" = lfmmi ] && prefix+=_lfmmi
results=${results:-$expdir/results${prefix#"$expdir/hybrid"}.json}

# What all trainings have in common, on the alignment that is $training_ali.
training_ali=$ali
criterion_options=""
train_options() {
    local config=$1 output=$2
    echo "--seed $seed --config $config --output_dir $output --ngpu $ngpu"
    normalize_options "$stats"
    echo "--train_shape_file $training_ali/$train_set/speech_shape"
    echo "--valid_shape_file $training_ali/dev/speech_shape"
    echo "$criterion_options"
    data_options "$training_ali"
}

# Trains with ESPnet and resumes what was interrupted: train CONFIG OUTPUT OPTION...
train() {
    local config=$1 output=$2
    shift 2
    if [ -e "$output/$inference_model" ]; then
        # An alignment that comes out as it was keeps its time.
        if ! up_to_date "$output/$inference_model" "$training_ali/$train_set/pdf_ids"; then
            [ "$dry_run" = true ] && return 0
            echo "run.sh: $output was trained on an earlier $training_ali/$train_set/pdf_ids." >&2
            echo "Remove $output to train it again, or choose another --expdir" >&2
            exit 1
        fi
        log "$output: trained already"
        return 0
    fi
    log "$output: training (log: $output/train.log)"
    # shellcheck disable=SC2046,SC2086
    train_job "$output/train.log" $python -m espnet_quant4.bin.hybrid_train \
        $(train_options "$config" "$output") --resume true "$@" $hybrid_args
}

# Lists what is trained on, with lengths: what has statistics and is in the alignment.
list_aligned() {
    local part kind
    [ "$dry_run" = false ] || return 0
    for part in train:$train_set valid:dev; do
        kind=${part%:*} part=${part#*:}
        awk 'NR == FNR { aligned[$1]; next } $1 in aligned' "$training_ali/$part/pdf_ids" \
            "$stats/$kind/speech_shape" > "$training_ali/$part/speech_shape"
    done
}

# Trains the FP32 system: on the GMM's alignment by frame cross-entropy; then, where that is asked for,
# on the network's own alignment; then on sequences. Leaves its alignment in $training_ali, and the
# options of its criterion, with which quantization-aware training goes on.
train_float() {
    local config=$hybrid_config fp32=$expdir/hybrid_fp32 start part
    list_aligned
    train "$config" "$fp32"
    if [ "$realign" = true ]; then
        start=$fp32 fp32=$expdir/hybrid_realigned_fp32
        network_prior "$start"
        training_ali=$expdir/hybrid_realigned_ali
        for part in $train_set dev; do
            network_scores "$start" emulated "$start/align/$part" "$part"
            gmm realign "$training_ali/$part" --data "$dumpdir/raw/$part" --model "$ali/$part" \
                --scores "$start/align/$part/scores.scp"
        done
        list_aligned
        train "${realign_config:-$config}" "$fp32" --init_param "$start/$inference_model"
    fi
    if [ "$criterion" = lfmmi ]; then
        start=$fp32 fp32=${prefix}_fp32
        # shellcheck disable=SC2086
        logged $train_cmd "$fp32/hybrid_denominator.log" $python \
            -m espnet_quant4.bin.hybrid_denominator --pdf_ids "$training_ali/$train_set/pdf_ids" \
            --num_pdfs "$training_ali/$train_set/num_pdfs" --output "${prefix}_den.fst" \
            $denominator_args
        criterion_options="--model_conf criterion=lfmmi
            --model_conf lfmmi_conf.denominator=${prefix}_den.fst"
        train "$lfmmi_config" "$fp32" --init_param "$start/$inference_model"
    fi
}

# Trains a quantized system in the way of the FP32 one, on the alignment that that was last trained on:
# train_from_scratch OUTPUT OPTION...
train_from_scratch() {
    local output=$1
    shift
    if [ "$realign" = true ]; then
        train "$hybrid_config" "$output/first" "$@"
        train "${realign_config:-$hybrid_config}" "$output" \
            --init_param "$output/first/$inference_model" "$@"
    else
        train "$hybrid_config" "$output" "$@"
    fi
}
