#!/usr/bin/env bash
# Plain stage driver of the recipes: ESPnet's stage numbers and options, ESPnet's own modules for
# every step that ESPnet has. Called by a recipe's run.sh from the recipe's folder.
set -euo pipefail

# General
stage=1                # first stage to run
stop_stage=13          # last stage to run
ngpu=0                 # number of GPUs
nj=2                   # parallel decoding jobs
train_jobs=1           # quantized systems trained at the same time
python=python3         # python command, may be of several words
dumpdir=dump           # formatted data
expdir=exp             # experiments
datadir=data           # data folders of stage 1
seed=1
# Data
fs=8000                # sampling rate in Hz
local_data_opts=""     # options for local/data.sh
speed_perturb_factors="0.9 1.0 1.1"   # copies of the training part at these speeds; "" for none
min_wav_duration=0.2   # seconds
max_wav_duration=20    # seconds, of the training part
# Training
schemes="fp32 naive tailored"     # systems: fp32, and quantization schemes (name or file)
asr_config=conf/train_asr_fp32.yaml
ctc_config=conf/train_asr_ctc.yaml    # encoder pre-training; "" for none
qat_config=conf/train_asr_qat.yaml
asr_args=""            # further options for every training, such as "--max_epoch 1"
qat_args=""            # further options for quantization-aware training
from_scratch=true      # false: take the FP32 model of pretrained/ instead of training it
pretrained=pretrained
calibration_batches=16
# Decoding
inference_config=conf/decode_asr.yaml
inference_asr_model=valid.loss.ave.pth
inferences="emulated int4"   # how quantized systems are decoded: in float, or on 4-bit codes
test_sets="dev test"
results=               # results table as JSON; default EXPDIR/results.json

help="Usage: ./run.sh [--OPTION VALUE]...
Options and their defaults stand at the top of egs/common/asr.sh. Stages:
  1 data  2 speed perturbation  3 format  4 remove long/short  5 tokens  10 statistics
  11 training (FP32, then calibration and quantization-aware training)  12 decoding  13 scoring
  14 packing (only when asked for: --stop_stage 14)"

while [ $# -gt 0 ]; do
    case $1 in
        -h|--help) echo "$help"; exit 0 ;;
        --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    esac
    name=${1#--}
    if [ "$name" = "$1" ] || [ -z "${!name+set}" ] || [[ ! $name =~ ^[a-z_]+$ ]]; then
        echo "run.sh: unknown option $1; the options stand at the top of egs/common/asr.sh" >&2
        exit 2
    fi
    if [ $# -lt 2 ]; then echo "run.sh: $1 wants a value" >&2; exit 2; fi
    printf -v "$name" '%s' "$2"
    shift 2
done
case $from_scratch in true|false) ;; *)
    echo "run.sh: --from_scratch $from_scratch; valid: true, false" >&2; exit 2 ;;
esac

. ./path.sh
. ./cmd.sh
common=$(dirname "${BASH_SOURCE[0]}")
token_list=$datadir/token_list/char/tokens.txt
stats=$expdir/asr_stats_raw_char
results=${results:-$expdir/results.json}
system_of() { basename "${1%.yaml}"; }
log() { echo "$(date '+%H:%M:%S') $*"; }
doing() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]; }
# Runs a command, or several with JOB=FIRST:LAST before the log, under one of cmd.sh's runners.
logged() {
    local status=0
    "$@" || status=$?
    if [ $status -ne 0 ]; then
        echo "run.sh: failed with exit status $status: $*" >&2
        exit $status
    fi
}

# Runs a command for each system, JOB standing for its name, train_jobs of them at a time. More than
# one needs a runner that takes JOB=NAME,NAME.
each_system() {
    local systems=$1 system
    shift
    if [ "$train_jobs" -gt 1 ] && [ "$(wc -w <<< "$systems")" -gt 1 ]; then
        # shellcheck disable=SC2086
        OMP_NUM_THREADS=$(($(nproc) > train_jobs ? $(nproc) / train_jobs : 1)) \
            logged $train_cmd --jobs "$train_jobs" "JOB=$(tr -s ' ' ',' <<< "$systems")" "$@"
    else
        # shellcheck disable=SC2086
        for system in $systems; do logged $train_cmd "${@//JOB/$system}"; done
    fi
}

if doing 1; then
    log "stage 1: data"
    # shellcheck disable=SC2086
    local/data.sh --python "$python" --data "$datadir" $local_data_opts
fi

if doing 2; then
    log "stage 2: speed perturbation of train: ${speed_perturb_factors:-none}"
    if [ -n "$speed_perturb_factors" ]; then
        # shellcheck disable=SC2086
        $python "$common/prepare.py" perturb "$datadir/train" "$datadir/train_sp" --fs "$fs" \
            --factors $speed_perturb_factors
    fi
fi
train_set=train
[ -n "$speed_perturb_factors" ] && train_set=train_sp

if doing 3; then
    log "stage 3: format"
    for part in $train_set $test_sets; do
        $python "$common/prepare.py" format "$datadir/$part" "$dumpdir/raw/org/$part" --fs "$fs"
    done
fi

if doing 4; then
    log "stage 4: remove long and short utterances"
    for part in $train_set $test_sets; do
        limit=$max_wav_duration
        # The limit is for the cost of training; what is scored is scored as a whole.
        [ "$part" != $train_set ] && limit=1000000
        $python "$common/prepare.py" filter "$dumpdir/raw/org/$part" "$dumpdir/raw/$part" \
            --fs "$fs" --min_seconds "$min_wav_duration" --max_seconds "$limit"
    done
fi

if doing 5; then
    log "stage 5: character tokens"
    mkdir -p "$(dirname "$token_list")"
    $python -m espnet2.bin.tokenize_text --token_type char --field 2- --cleaner none --g2p none \
        --input "$dumpdir/raw/$train_set/text" --output "$token_list.part" --write_vocabulary true \
        --add_symbol "<blank>:0" --add_symbol "<unk>:1" --add_symbol "<sos/eos>:-1" \
        --log_level WARNING
    if [ "$from_scratch" = false ]; then
        # The order of tokens is that of the trained model's outputs.
        unknown=$(grep -vxFf "$pretrained/tokens.txt" "$token_list.part" | tr '\n' ' ' || true)
        if [ -n "$unknown" ]; then
            echo "run.sh: $pretrained/fp32.pth knows no token for: $unknown" >&2
            echo "Remove these characters in local/data.py, or train: --from_scratch true" >&2
            exit 1
        fi
        cp "$pretrained/tokens.txt" "$token_list.part"
    fi
    if cmp -s "$token_list.part" "$token_list"; then rm "$token_list.part"
    else mv "$token_list.part" "$token_list"; fi
fi

data_options() {
    local file
    for file in wav.scp,speech,sound text,text,text; do
        echo "--train_data_path_and_name_and_type $dumpdir/raw/$train_set/$file"
        echo "--valid_data_path_and_name_and_type $dumpdir/raw/dev/$file"
    done
}

if doing 10; then
    log "stage 10: statistics"
    if [ ! "$stats/train/feats_stats.npz" -nt "$dumpdir/raw/$train_set/wav.scp" ]; then
        # shellcheck disable=SC2046,SC2086
        logged $train_cmd "$stats/stats.log" $python -m espnet2.bin.asr_train \
            --collect_stats true --use_preprocessor true --token_type char --ngpu 0 \
            --token_list "$token_list" --config "$asr_config" --normalize none \
            --batch_type unsorted --batch_size 8 --output_dir "$stats" $(data_options) \
            --train_shape_file "$dumpdir/raw/$train_set/utt2num_samples" \
            --valid_shape_file "$dumpdir/raw/dev/utt2num_samples"
    fi
    for part in train valid; do
        awk -v n="$(wc -l < "$token_list")" '{print $0 "," n}' \
            "$stats/$part/text_shape" > "$stats/$part/text_shape.char"
    done
fi

# All that trainings of one model have in common.
train_options() {
    local config=$1 output=$2 part
    echo "--use_preprocessor true --token_type char --token_list $token_list --seed $seed"
    echo "--config $config --output_dir $output --ngpu $ngpu"
    echo "--normalize global_mvn --normalize_conf stats_file=$stats/train/feats_stats.npz"
    for part in train valid; do
        echo "--${part}_shape_file $stats/$part/speech_shape"
        echo "--${part}_shape_file $stats/$part/text_shape.char"
    done
    data_options
}

# Trains with ESPnet and resumes what was interrupted.
train() {
    local config=$1 output=$2
    shift 2
    if [ -e "$output/$inference_asr_model" ]; then log "$output: trained already"; return 0; fi
    mkdir -p "$output"
    log "$output: training (log: $output/train.log)"
    # shellcheck disable=SC2046,SC2086
    logged $train_cmd "$output/train.log" $python -m espnet2.bin.asr_train \
        $(train_options "$config" "$output") --resume true "$@" $asr_args
}

if doing 11; then
    log "stage 11: training"
    fp32=$expdir/asr_fp32
    if [ "$from_scratch" = false ]; then
        if [ ! -e "$pretrained/fp32.pth" ]; then
            echo "no $pretrained/fp32.pth; train it: --from_scratch true" >&2; exit 1
        fi
        cmp "$pretrained/tokens.txt" "$token_list" || {
            echo "run.sh: $pretrained/fp32.pth was trained with other tokens; run stage 5" >&2
            exit 1; }
        if ! cmp -s "$pretrained/fp32.pth" "$fp32/$inference_asr_model"; then
            log "$fp32: taken from $pretrained/fp32.pth"
            # ESPnet writes the model's config.yaml and stops there.
            # shellcheck disable=SC2046,SC2086
            logged $train_cmd "$fp32/config.log" $python -m espnet2.bin.asr_train \
                $(train_options "$asr_config" "$fp32") --dry_run true
            cp "$pretrained/fp32.pth" "$fp32/$inference_asr_model"
        fi
    else
        start=()
        if [ -n "$ctc_config" ]; then
            train "$ctc_config" "$expdir/asr_ctc"
            start=(--init_param "$expdir/asr_ctc/$inference_asr_model")
        fi
        train "$asr_config" "$fp32" "${start[@]}"
    fi
    to_calibrate="" to_train=""
    for scheme in $schemes; do
        system=$(system_of "$scheme")
        [ "$system" = fp32 ] && continue
        output=$expdir/asr_$system
        if [ "$fp32/$inference_asr_model" -nt "$output/calibrated.pth" ] &&
            [ -e "$output/calibrated.pth" ]; then
            echo "run.sh: $output was started from an earlier $fp32/$inference_asr_model." >&2
            echo "Remove $output to train it again, or choose another --expdir" >&2
            exit 1
        fi
        mkdir -p "$output"
        # A file, or the name of one of the schemes that recipes share.
        [ -e "$scheme" ] || scheme=$common/../../conf/scheme/$system.yaml
        if [ ! -e "$scheme" ]; then
            echo "run.sh: --schemes: no scheme $system; valid: a YAML file, or one of" >&2
            (cd "$common/../../conf/scheme" && echo ./*.yaml) >&2
            exit 2
        fi
        cmp -s "$scheme" "$output/scheme.yaml" || cp "$scheme" "$output/scheme.yaml"
        [ -e "$output/calibrated.pth" ] || to_calibrate+=" $system"
        if [ -e "$output/$inference_asr_model" ]; then log "$output: trained already"
        else to_train+=" $system"; fi
    done
    scheme_option="scheme=$expdir/asr_JOB/scheme.yaml"
    if [ -n "$to_calibrate" ]; then
        log "calibration:$to_calibrate (log: $expdir/asr_*/calibrate.log)"
        # shellcheck disable=SC2046
        each_system "$to_calibrate" "$expdir/asr_JOB/calibrate.log" \
            $python -m espnet_quant4.bin.main calibrate \
            $(train_options "$qat_config" "$expdir/asr_JOB") --model_conf "$scheme_option" \
            --init_param "$fp32/$inference_asr_model" --batches "$calibration_batches" \
            --output "$expdir/asr_JOB/calibrated.pth"
        for system in $to_calibrate; do
            log "$expdir/asr_$system: clips of activations"
            sed -n '/^ *clip  bits/,/^saved/p' "$expdir/asr_$system/calibrate.log"
        done
    fi
    if [ -n "$to_train" ]; then
        log "quantization-aware training:$to_train (log: $expdir/asr_*/train.log)"
        # shellcheck disable=SC2046,SC2086
        each_system "$to_train" "$expdir/asr_JOB/train.log" $python -m espnet2.bin.asr_train \
            $(train_options "$qat_config" "$expdir/asr_JOB") --resume true \
            --model_conf "$scheme_option" --init_param "$expdir/asr_JOB/calibrated.pth" \
            $asr_args $qat_args
    fi
fi

# How a system is decoded: FP32 in one way, quantized ones in each of $inferences.
inferences_of() { if [ "$1" = fp32 ]; then echo emulated; else echo "$inferences"; fi; }

if doing 12; then
    log "stage 12: decoding"
    for scheme in $schemes; do
        system=$(system_of "$scheme")
        output=$expdir/asr_$system
        for inference in $(inferences_of "$system"); do
            name=$(basename "${inference_config%.yaml}")
            if [ "$inference" = int4 ]; then
                name+=_int4
                if [ ! "$output/model.int4" -nt "$output/$inference_asr_model" ]; then
                    $python -m espnet_quant4.bin.main convert \
                        --asr_train_config "$output/config.yaml" \
                        --asr_model_file "$output/$inference_asr_model" --output "$output/model.int4"
                fi
            fi
            for part in $test_sets; do
                folder=$output/$name/$part
                if [ "$folder/text" -nt "$output/$inference_asr_model" ]; then
                    log "$folder: decoded already"
                    continue
                fi
                utterances=$(wc -l < "$dumpdir/raw/$part/wav.scp")
                log "$folder: $utterances utterances"
                mkdir -p "$folder/logdir"
                jobs=$((nj < utterances ? nj : utterances))
                for job in $(seq "$jobs"); do
                    awk -v n="$jobs" -v j="$job" 'NR % n == j % n' "$dumpdir/raw/$part/wav.scp" \
                        > "$folder/logdir/keys.$job.scp"
                done
                # One thread a job: the jobs are the parallel part.
                # shellcheck disable=SC2086
                OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 ESPNET_QUANT4_INFERENCE=$inference \
                    logged $decode_cmd JOB=1:"$jobs" \
                    "$folder/logdir/asr_inference.JOB.log" $python -m espnet2.bin.asr_inference \
                    --ngpu 0 --config "$inference_config" \
                    --data_path_and_name_and_type "$dumpdir/raw/$part/wav.scp,speech,sound" \
                    --key_file "$folder/logdir/keys.JOB.scp" \
                    --asr_train_config "$output/config.yaml" \
                    --asr_model_file "$output/$inference_asr_model" \
                    --output_dir "$folder/logdir/output.JOB"
                sort "$folder"/logdir/output.*/1best_recog/text > "$folder/text.part"
                mv "$folder/text.part" "$folder/text"
            done
        done
    done
fi

if doing 13; then
    log "stage 13: scoring"
    systems=()
    for scheme in $schemes; do systems+=("$expdir/asr_$(system_of "$scheme")"); done
    # shellcheck disable=SC2086
    $python -m espnet_quant4.bin.main results --systems "${systems[@]}" --parts $test_sets \
        --dumpdir "$dumpdir/raw" --inference "$(basename "${inference_config%.yaml}")" \
        --model "$inference_asr_model" --fs "$fs" --output "$results"
fi

if doing 14; then
    log "stage 14: packing"
    for scheme in $schemes; do
        output=$expdir/asr_$(system_of "$scheme")
        $python -m espnet2.bin.pack asr --asr_train_config "$output/config.yaml" \
            --asr_model_file "$output/$inference_asr_model" --option "$token_list" \
            --outpath "$output/model.zip"
    done
fi
