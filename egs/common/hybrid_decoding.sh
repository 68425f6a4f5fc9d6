# Scores and search of the hybrid recipes. Sourced by hybrid.sh, whose options these functions read.

inference_name=$(basename "${inference_config%.yaml}")
# dev is decoded in any case: scales are chosen there.
# shellcheck disable=SC2086
parts=$(each_once dev $test_sets)

# Where a network's scores and words lie: decoding_folder SYSTEM INFERENCE
decoding_folder() {
    local folder=$1/$inference_name
    [ "$2" = int4 ] && folder+=_int4
    echo "$folder"
}

# Where the utterances of a part are in their calls, if that is known: in call_segments where there is a
# file for each utterance.
segments_of() {
    local segments
    for segments in "$datadir/$1/call_segments" "$datadir/$1/segments"; do
        if [ -e "$segments" ]; then echo "$segments"; return; fi
    done
}

# What a network subtracts from its log posteriors, from the alignment that it was trained on.
network_prior() {
    local system=$1 counts=$training_ali/$train_set/pdf_counts
    logged $train_cmd "$system/hybrid_prior.log" $python -m espnet_quant4.bin.hybrid_prior \
        --pdf_counts "$counts" --output "$system/log_prior"
}

# Scores of a part by a trained system: network_scores SYSTEM INFERENCE FOLDER PART
network_scores() {
    local system=$1 inference=$2 folder=$3 part=$4 speech list
    local model=$1/$inference_model jobs job options
    speech=$(speech_of "$part")
    list=${speech%%,*}
    options=(--hybrid_train_config "$system/config.yaml" --hybrid_model_file "$model")
    options+=(--log_prior "$system/log_prior")
    if [ "$inference" = int4 ]; then
        if ! up_to_date "$system/model.int4" "$model" "$system/log_prior"; then
            run $python -m espnet_quant4.bin.main convert "${options[@]}" --output "$system/model.int4"
        fi
        options=(--int4_file "$system/model.int4")
    fi
    if up_to_date "$folder/scores.scp" "$model" "$system/log_prior" "$inference_config" "$list"; then
        log "$folder: scored already"
        return 0
    fi
    jobs=$(split_keys "$list" "$folder")
    log "$folder: scores, $jobs jobs"
    # One thread a job: the jobs are the parallel part.
    # shellcheck disable=SC2086
    OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 ESPNET_QUANT4_INFERENCE=$inference \
        logged $decode_cmd JOB=1:"$jobs" "$folder/logdir/hybrid_inference.JOB.log" $python \
        -m espnet_quant4.bin.hybrid_inference --ngpu 0 --config "$inference_config" \
        --data_path_and_name_and_type "$speech" \
        --key_file "$folder/logdir/keys.JOB.scp" "${options[@]}" \
        --output_dir "$folder/logdir/output.JOB"
    join_scores "$folder" "$jobs"
}

# Scores of a part by the GMM: gmm_scores FOLDER PART
gmm_scores() {
    local folder=$1 data=$dumpdir/raw/$2
    log "$folder: scores of the GMM"
    # shellcheck disable=SC2086
    logged $decode_cmd "$folder/logdir/hybrid_gmm.log" $python -m espnet_quant4.bin.hybrid_gmm \
        scores --data "$data" --model "$triphone" --output "$folder/logdir/output.1"
    kept_or_why "$folder/logdir/hybrid_gmm.log"
    join_scores "$folder" 1
}

# Makes one index of the scores of all jobs, which are kept apart for the search.
join_scores() {
    local folder=$1 jobs=$2 job
    [ "$dry_run" = false ] || return 0
    for job in $(seq "$jobs"); do cat "$folder/logdir/output.$job/scores.scp"; done |
        sort > "$folder/scores.scp.part"
    echo "$jobs" > "$folder/num_jobs"
    mv "$folder/scores.scp.part" "$folder/scores.scp"
}

# Searches the graph with the scores of all parts, and chooses scales on dev: search FOLDER
# ACOUSTIC_SCALE "LM_SCALE...". What was searched with the same scores, graph and options is kept by
# hybrid_decode itself.
search() {
    local system=$1 acoustic_scale=$2 lm_scales=$3 part folder jobs choice
    for part in $parts; do
        folder=$system/$part
        if [ "$dry_run" = true ]; then jobs=$nj; else jobs=$(cat "$folder/num_jobs"); fi
        log "$folder: search"
        # shellcheck disable=SC2086
        OMP_NUM_THREADS=1 logged $decode_cmd JOB=1:"$jobs" "$folder/logdir/hybrid_decode.JOB.log" \
            $python -m espnet_quant4.bin.hybrid_decode --graph "$graph" \
            --tree "$ali/$train_set/tree" --scores "$folder/logdir/output.JOB/scores.scp" \
            --output "$folder/logdir/search.JOB" --acoustic_scale "$acoustic_scale" \
            --nbest "$nbest" $decode_args
        choice=(--tuned "$system/dev/tuned.json")
        if [ "$part" = dev ]; then
            # shellcheck disable=SC2206
            choice=(--tune_on "$dumpdir/raw/dev/text" --lm_scale $lm_scales
                --word_insertion_penalty $word_insertion_penalties)
        fi
        # shellcheck disable=SC2046,SC2086
        logged $decode_cmd "$folder/logdir/hybrid_rescore.log" $python \
            -m espnet_quant4.bin.hybrid_rescore $rescore_args "${choice[@]}" \
            --output "$folder" --nbest $(seq -f "$folder/logdir/search.%g/nbest" "$jobs")
        if [ "$word_times" = true ]; then times_of_words "$folder" "$acoustic_scale" "$part"; fi
    done
}

# Times of the words of a part's text, in its calls where these are known: times_of_words FOLDER
# ACOUSTIC_SCALE PART
times_of_words() {
    local folder=$1 acoustic_scale=$2 part=$3 segments options=()
    segments=$(segments_of "$part")
    [ -n "$segments" ] && options=(--segments "$segments")
    log "$folder: times of words"
    # shellcheck disable=SC2086
    OMP_NUM_THREADS=1 logged $decode_cmd "$folder/logdir/hybrid_ctm.log" $python \
        -m espnet_quant4.bin.hybrid_ctm --text "$folder/text" --scores "$folder/scores.scp" \
        --lang "$lang" --model "$ali/$train_set" --acoustic_scale "$acoustic_scale" \
        --output "$folder" ${options[@]+"${options[@]}"}
}

# Scores a test set by NIST's rules, of every system and way of inference: hub5_score PART
hub5_score() {
    local part=$1 folder scheme system inference data=$datadir/$1 segments words
    segments=$(segments_of "$part")
    for scheme in $schemes; do
        system=$(system_of "$scheme")
        for inference in $(inferences_of "$system"); do
            folder=$(decoding_folder "${prefix}_$system" "$inference")
            # Before the data are prepared, in a dry run, there is no file to be found.
            words=(--hyp "$folder/$part/text" --segments "${segments:-$data/segments}")
            [ "$word_times" = true ] && words=(--ctm "$folder/$part/ctm")
            # shellcheck disable=SC2086
            run $python -m espnet_quant4.bin.main hub5 --stm "$data/stm" --glm "$data/glm" \
                "${words[@]}" --output "$folder/$part/score_hub5"
        done
    done
}
