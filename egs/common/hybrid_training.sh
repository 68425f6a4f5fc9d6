# Training of the hybrid recipes' networks. Sourced by hybrid.sh, whose options these functions read.

# All that trainings and statistics have in common: data_options ALIGNMENT.
data_options() {
    local ali=$1 part kind
    echo "--num_pdfs $ali/$train_set/num_pdfs"
    for part in train:$train_set valid:dev; do
        kind=${part%:*} part=${part#*:}
        echo "--${kind}_data_path_and_name_and_type $dumpdir/raw/$part/wav.scp,speech,sound"
        echo "--${kind}_data_path_and_name_and_type $ali/$part/pdf_ids,pdf_ids,text_int"
    done
}

# What all trainings have in common, on the alignment that is $training_ali.
training_ali=$ali
den=$expdir/lfmmi/den.fst
criterion_options=""
train_options() {
    local config=$1 output=$2
    echo "--seed $seed --config $config --output_dir $output --ngpu $ngpu"
    echo "--normalize $feats_normalize"
    if [ "$feats_normalize" = global_mvn ]; then
        echo "--normalize_conf stats_file=$stats/train/feats_stats.npz"
    fi
    echo "--train_shape_file $training_ali/$train_set/speech_shape"
    echo "--valid_shape_file $training_ali/dev/speech_shape"
    echo "$criterion_options"
    data_options "$training_ali"
}

# Trains with ESPnet and resumes what was interrupted: train CONFIG OUTPUT OPTION...
train() {
    local config=$1 output=$2
    shift 2
    if [ -e "$output/$inference_model" ]; then log "$output: trained already"; return 0; fi
    log "$output: training (log: $output/train.log)"
    # shellcheck disable=SC2046,SC2086
    logged $train_cmd "$output/train.log" $python -m espnet_quant4.bin.hybrid_train \
        $(train_options "$config" "$output") --resume true "$@" $hybrid_args
}

# Lists what is trained on, with lengths: what has statistics and is in the alignment.
list_aligned() {
    local part kind
    for part in train:$train_set valid:dev; do
        kind=${part%:*} part=${part#*:}
        awk 'NR == FNR { aligned[$1]; next } $1 in aligned' "$training_ali/$part/pdf_ids" \
            "$stats/$kind/speech_shape" > "$training_ali/$part/speech_shape"
    done
}

# Trains the FP32 system: on the GMM's alignment by frame cross-entropy, then, where that is asked for,
# on the network's own alignment, then on sequences. Leaves its alignment in $training_ali.
train_float() {
    local config=$hybrid_config start=() first frames part
    list_aligned
    if [ "$realign" = true ]; then
        first=$expdir/hybrid_before_realignment
        train "$config" "$first"
        network_prior "$first"
        for part in $train_set dev; do
            network_scores "$first" emulated "$first/align/$part" "$part"
            gmm realign "${first}_ali/$part" "$first/align/$part/scores.scp" \
                --data "$dumpdir/raw/$part" --model "$ali/$part" \
                --scores "$first/align/$part/scores.scp"
        done
        training_ali=${first}_ali
        list_aligned
        start=(--init_param "$first/$inference_model")
    fi
    if [ "$criterion" = lfmmi ]; then
        frames=$expdir/hybrid_before_lfmmi
        train "$config" "$frames" "${start[@]}"
        if ! up_to_date "$den" "$training_ali/$train_set/pdf_ids"; then
            # shellcheck disable=SC2086
            logged $train_cmd "$expdir/lfmmi/hybrid_denominator.log" $python \
                -m espnet_quant4.bin.hybrid_denominator --pdf_ids "$training_ali/$train_set/pdf_ids" \
                --num_pdfs "$training_ali/$train_set/num_pdfs" --output "$den" $denominator_args
        fi
        # Quantization-aware training goes on with the same criterion.
        criterion_options="--model_conf criterion=lfmmi --model_conf lfmmi_conf.denominator=$den"
        config=$lfmmi_config
        start=(--init_param "$frames/$inference_model")
    fi
    train "$config" "$expdir/hybrid_fp32" "${start[@]}"
}
