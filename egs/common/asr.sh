#!/usr/bin/env bash
# Stage driver of the transducer recipes: ESPnet's stage numbers and options, ESPnet's own modules for
# every step that ESPnet has. With ESPNET_ROOT, a checkout of ESPnet, its asr.sh runs the stages;
# without, this script does. Called by a recipe's run.sh from the recipe's folder.
set -euo pipefail

# General
stage=1                # first stage to run
stop_stage=13          # last stage to run
ngpu=0                 # number of GPUs
nj=2                   # parallel decoding jobs
train_jobs=1           # quantized systems trained at the same time, on CPUs (--ngpu 0); not with ESPNET_ROOT
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
feats_type=raw         # what networks read: raw, waveforms; or fbank, log mel energies in Kaldi's archives,
                       # normalized by speaker (speakers as in utt2spk); not with ESPNET_ROOT
num_mels=40            # energies of fbank
feats_normalize=       # global_mvn, the default of raw; none, that of fbank; or utterance_mvn
# Training
schemes="fp32 naive tailored"     # systems: fp32, and quantization schemes (name or file)
asr_config=conf/train_asr_fp32.yaml
ctc_config=conf/train_asr_ctc.yaml    # encoder pre-training; "" for none
init_encoder=          # checkpoint whose encoder the first training starts from, such as a hybrid's network
qat_config=conf/train_asr_qat.yaml
asr_args=""            # further options for every training, such as "--max_epoch 1"
qat=true               # false: quantized systems are calibrated alone, without training; scratch: they are
                       # trained as FP32 is, from where it starts, with quantizers from the first step
qat_args=""            # further options for quantization-aware training
from_scratch=true      # false: take the FP32 model of pretrained/ instead of training it
pretrained=pretrained
calibration_batches=16
# Decoding
inference_config=conf/decode_asr.yaml
inference_asr_model=valid.loss.ave.pth
inferences="emulated int4"   # how quantized systems are decoded: in float, or on 4-bit codes
train_set=train        # folders of local/data.sh
valid_set=dev
test_sets="dev test"
results=               # results table as JSON; default EXPDIR/results.json
num_nodes=1            # machines of a training, with --ngpu
# With ESPNET_ROOT only
inference_nj=          # parallel decoding jobs; default --nj
stats_nj=1             # parallel jobs of stage 10; sums of several differ in their last bits
audio_format=wav       # of stage 3: wav, flac, flac.ark...
nlsyms_txt=none        # file of symbols that are no characters, such as [noise]
speed_perturb_by=soxr  # soxr: in this process, as without a checkout; asr.sh: by sox, stage 2 of asr.sh
espnet_args=""         # further options for every call of asr.sh
dry_run=false          # true: show every command, and check what the recipe needs
needs=""               # of a dry run's check: further options for espnet-quant4 check
data_check_opts=""     # with which local/data.sh checks the corpus and writes nothing; "" where it cannot

help="Usage: ./run.sh [--OPTION VALUE]...
Options and their defaults stand at the top of egs/common/asr.sh. Stages:
  1 data  2 speed perturbation  3 format  4 remove long/short  5 tokens  10 statistics
  11 training (FP32, then calibration and quantization-aware training)  12 decoding  13 scoring
  14 packing (only when asked for: --stop_stage 14)
With ESPNET_ROOT=/path/to/espnet in the environment ESPnet's asr.sh runs all that it has a stage for."

. "$(dirname "${BASH_SOURCE[0]}")/driver.sh"
parse_options "$@"
one_of from_scratch true false
one_of speed_perturb_by soxr asr.sh
one_of dry_run true false
one_of qat true false scratch
feats_options global_mvn
check_jobs
if [ "$qat" != true ] && [ -n "${ESPNET_ROOT:-}" ]; then
    echo "run.sh: --qat $qat is not for ESPnet's asr.sh; unset ESPNET_ROOT" >&2
    exit 2
fi
if [ "$train_jobs" -gt 1 ] && [ -n "${ESPNET_ROOT:-}" ]; then
    echo "run.sh: --train_jobs $train_jobs is not for ESPnet's asr.sh; --train_jobs 1, or unset ESPNET_ROOT" >&2
    exit 2
fi
if [ "$feats_type" = fbank ] && [ -n "${ESPNET_ROOT:-}" ]; then
    echo "run.sh: --feats_type fbank is not for ESPnet's asr.sh; --feats_type raw, or unset ESPNET_ROOT" >&2
    exit 2
fi

# Also what only uses ESPnet's run.pl and its like finds them so.
if [ -n "${ESPNET_ROOT:-}" ]; then "$common/setup_espnet.sh" .; fi
. ./path.sh
. ./cmd.sh
check_python
token_list=$datadir/token_list/char/tokens.txt
stats=$expdir/asr_stats_raw_char
results=${results:-$expdir/results.json}

# The order of tokens is that of a trained model's outputs: where --from_scratch false, its list takes
# the place of the data's.
order_tokens() {
    local tokens=$1 unknown
    [ "$from_scratch" = true ] && return 0
    [ "$dry_run" = true ] && return 0
    unknown=$(grep -vxFf "$pretrained/tokens.txt" "$tokens" | tr '\n' ' ' || true)
    if [ -n "$unknown" ]; then
        echo "run.sh: $pretrained/fp32.pth knows no token for: $unknown" >&2
        echo "Remove these characters in local/data.py, or train: --from_scratch true" >&2
        exit 1
    fi
    cp "$pretrained/tokens.txt" "$tokens"
}

# Converts a trained system for decoding on codes, if it has changed.
convert_to_int4() {
    local output=$1
    if [ ! "$output/model.int4" -nt "$output/$inference_asr_model" ]; then
        # shellcheck disable=SC2086
        run $python -m espnet_quant4.bin.main convert --asr_train_config "$output/config.yaml" \
            --asr_model_file "$output/$inference_asr_model" --output "$output/model.int4"
    fi
}

# Makes the table of all systems: tabulate PART...
tabulate() {
    local scheme systems=() rate=$fs
    [ "$feats_type" = fbank ] && rate=100    # frames a second, in which features are counted
    for scheme in $schemes; do systems+=("$expdir/asr_$(system_of "$scheme")"); done
    # shellcheck disable=SC2086
    run $python -m espnet_quant4.bin.main results --systems "${systems[@]}" --parts "$@" \
        --dumpdir "$dumpdir/raw" --inference "$(basename "${inference_config%.yaml}")" \
        --model "$inference_asr_model" --fs "$rate" --output "$results"
}

# Whether the model of pretrained/ is there, and of these tokens.
check_pretrained() {
    if [ ! -e "$pretrained/fp32.pth" ]; then
        echo "no $pretrained/fp32.pth; train it: --from_scratch true" >&2; exit 1
    fi
    [ "$dry_run" = true ] && return 0
    cmp "$pretrained/tokens.txt" "$1" || {
        echo "run.sh: $pretrained/fp32.pth was trained with other tokens; run stage 5" >&2
        exit 1; }
}

if [ -n "${ESPNET_ROOT:-}" ]; then
    . "$common/through_espnet.sh"
    through_espnet
    [ "$dry_run" = false ] || check_needs
    exit
fi
if [ "$dry_run" = true ]; then
    echo "run.sh: --dry_run true shows what ESPnet's asr.sh would run; export ESPNET_ROOT" >&2
    exit 2
fi

prepare_data
# shellcheck disable=SC2086
if doing 4; then write_features $train_set $valid_set $test_sets; fi

if doing 5; then
    log "stage 5: character tokens"
    mkdir -p "$(dirname "$token_list")"
    $python -m espnet2.bin.tokenize_text --token_type char --field 2- --cleaner none --g2p none \
        --input "$dumpdir/raw/$train_set/text" --output "$token_list.part" --write_vocabulary true \
        --add_symbol "<blank>:0" --add_symbol "<unk>:1" --add_symbol "<sos/eos>:-1" \
        --log_level WARNING
    order_tokens "$token_list.part"
    if cmp -s "$token_list.part" "$token_list"; then rm "$token_list.part"
    else mv "$token_list.part" "$token_list"; fi
fi

data_options() {
    local part kind
    input_options
    for part in train:$train_set valid:$valid_set; do
        kind=${part%:*} part=${part#*:}
        echo "--${kind}_data_path_and_name_and_type $(speech_of "$part")"
        echo "--${kind}_data_path_and_name_and_type $dumpdir/raw/$part/text,text,text"
    done
}

if doing 10; then
    log "stage 10: statistics"
    if [ ! "$stats/train/feats_stats.npz" -nt "$dumpdir/raw/$train_set/wav.scp" ]; then
        # shellcheck disable=SC2046,SC2086
        logged $train_cmd "$stats/stats.log" $python -m espnet2.bin.asr_train \
            --collect_stats true --use_preprocessor true --token_type char --ngpu 0 \
            --token_list "$token_list" --config "$asr_config" --normalize none \
            --output_dir "$stats" $(data_options) \
            --train_shape_file "$dumpdir/raw/$train_set/utt2num_samples" \
            --valid_shape_file "$dumpdir/raw/$valid_set/utt2num_samples"
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
    normalize_options "$stats"
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
    train_job "$output/train.log" $python -m espnet2.bin.asr_train \
        $(train_options "$config" "$output") --resume true "$@" $asr_args
}

# Trains a quantized system in the way of the FP32 one: train_from_scratch OUTPUT OPTION...
train_from_scratch() {
    local output=$1
    shift
    train "$asr_config" "$output" "${start[@]}" "$@"
}

if doing 11; then
    log "stage 11: training"
    start=()
    fp32=$expdir/asr_fp32
    if [ "$from_scratch" = false ]; then
        check_pretrained "$token_list"
        if ! cmp -s "$pretrained/fp32.pth" "$fp32/$inference_asr_model"; then
            log "$fp32: taken from $pretrained/fp32.pth"
            # ESPnet writes the model's config.yaml and stops there.
            # shellcheck disable=SC2046,SC2086
            logged $train_cmd "$fp32/config.log" $python -m espnet2.bin.asr_train \
                $(train_options "$asr_config" "$fp32") --dry_run true
            cp "$pretrained/fp32.pth" "$fp32/$inference_asr_model"
        fi
    else
        [ -n "$init_encoder" ] && start=(--init_param "$init_encoder:encoder:encoder")
        # What has been trained does not start anew, so it needs no start.
        if [ -n "$ctc_config" ] && { [ "$qat" = scratch ] || [ ! -e "$fp32/$inference_asr_model" ]; }; then
            train "$ctc_config" "$expdir/asr_ctc" "${start[@]}"
            start=(--init_param "$expdir/asr_ctc/$inference_asr_model")
        fi
        train "$asr_config" "$fp32" "${start[@]}"
    fi
    inference_model=$inference_asr_model args=$asr_args \
        quantize "$expdir/asr" "espnet_quant4.bin.main calibrate" espnet2.bin.asr_train
fi

if doing 12; then
    log "stage 12: decoding"
    for scheme in $schemes; do
        system=$(system_of "$scheme")
        output=$expdir/asr_$system
        for inference in $(inferences_of "$system"); do
            name=$(basename "${inference_config%.yaml}")
            if [ "$inference" = int4 ]; then
                name+=_int4
                convert_to_int4 "$output"
            fi
            for part in $test_sets; do
                folder=$output/$name/$part
                if [ "$folder/text" -nt "$output/$inference_asr_model" ]; then
                    log "$folder: decoded already"
                    continue
                fi
                log "$folder: $(wc -l < "$dumpdir/raw/$part/wav.scp") utterances"
                speech=$(speech_of "$part")
                jobs=$(split_keys "${speech%%,*}" "$folder")
                # One thread a job: the jobs are the parallel part.
                # shellcheck disable=SC2086
                OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 ESPNET_QUANT4_INFERENCE=$inference \
                    logged $decode_cmd JOB=1:"$jobs" \
                    "$folder/logdir/asr_inference.JOB.log" $python -m espnet2.bin.asr_inference \
                    --ngpu 0 --config "$inference_config" \
                    --data_path_and_name_and_type "$speech" \
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
    # shellcheck disable=SC2086
    tabulate $test_sets
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
