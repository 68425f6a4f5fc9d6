#!/usr/bin/env bash
# Stage driver of the hybrid recipes (deep LSTM and hidden Markov models): stage numbers and options as
# in asr.sh, ESPnet's own modules for every step that ESPnet has. Called by a recipe's run.sh from the
# recipe's folder.
set -euo pipefail

# General
stage=1                # first stage to run
stop_stage=13          # last stage to run
ngpu=0                 # number of GPUs
nj=2                   # parallel decoding jobs
train_jobs=1           # quantized systems trained at the same time, on CPUs (--ngpu 0)
python=python3         # python command, may be of several words
dumpdir=dump           # formatted data
expdir=exp             # experiments
datadir=data           # data folders of stage 1
seed=1
# Data
fs=16000               # sampling rate in Hz
local_data_opts=""     # options for local/data.sh
speed_perturb_factors=""              # copies of the training part at these speeds, "0.9 1.0 1.1"
min_wav_duration=0.2   # seconds
max_wav_duration=20    # seconds, of the training part
feats_type=raw         # what networks read: raw, waveforms; or fbank, log mel energies in Kaldi's archives,
                       # normalized by speaker (speakers as in utt2spk)
num_mels=40            # energies of fbank
# Lexicon and language model
lexicon=               # default DATADIR/local/dict/lexicon.txt, from local/data.sh
lang_args=""           # further options for hybrid_lang, such as "--oov refuse"
lm_order=2             # N-gram that the graph is built from
rescore_order=         # N-gram that n-best lists are rescored with; "" for none
lm_args=""             # further options for hybrid_lm
# GMM-HMM and alignment
mono_args=""           # further options for hybrid_gmm mono, such as "--gaussians 500"
triphone_args=""       # further options for hybrid_gmm triphone
leaves=400             # most tied states
gaussians=4000         # of the triphone model
kaldi_ali=             # folder of ali.*.gz, final.mdl, tree of your own Kaldi, instead of stages 5 to 8
kaldi_ali_dev=         # that of dev, if another
import_args=""         # further options for hybrid_import alignments, such as "--snip_edges false"
graph=                 # folder of HCLG.fst, words.txt, phones.txt of your own Kaldi for that tree
# Training
schemes="fp32 naive tailored"     # systems: fp32, and quantization schemes (name or file); "": GMM only
hybrid_config=conf/train_hybrid_fp32.yaml
qat_config=conf/train_hybrid_qat.yaml
hybrid_args=""         # further options for every training, such as "--max_epoch 1"
qat=true               # false: quantized systems are calibrated alone, without training; scratch: they are
                       # trained as FP32 is, on its alignment, with quantizers from the first step
qat_args=""            # further options for quantization-aware training
criterion=ce           # ce, or lfmmi: sequence training from the model of frame cross-entropy; its systems
                       # are EXPDIR/hybrid_lfmmi_SCHEME, beside the others
lfmmi_config=conf/train_hybrid_lfmmi.yaml
denominator_args=""    # further options for hybrid_denominator, such as "--order 3"
realign=false          # true: align once more, with the FP32 network, and train it again, as
                       # EXPDIR/hybrid_realigned_SCHEME
realign_config=        # of that training; default: --hybrid_config
feats_normalize=       # utterance_mvn, the default of raw; none, that of fbank; or global_mvn
calibration_batches=16
# Decoding
inference_config=      # default conf/decode_hybrid.yaml, after lfmmi conf/decode_hybrid_lfmmi.yaml
inference_model=valid.loss.ave.pth
inferences="emulated int4"   # how quantized systems are scored: in float, or on 4-bit codes
decode_gmm=true        # false: leave the GMM out of the table
nbest=100              # word sequences an utterance, of which dev chooses
acoustic_scale=0.1     # of the search
lm_scales="10 12 8 14 6 17 5"          # Kaldi's LMWT, tried on dev; of equals the first is taken
lfmmi_acoustic_scale=1                 # the same two after --criterion lfmmi
lfmmi_lm_scales="1 1.25 0.8 1.5 2 0.65 0.5 3"
gmm_acoustic_scale=0.1                 # and of the GMM
gmm_lm_scales="10 12 8 14 6 17 5"
word_insertion_penalties="0 0.5 1 -0.5"     # likewise
decode_args=""         # further options for hybrid_decode, such as "--beam 11"
rescore_args=""        # and for hybrid_rescore, such as "--lm_rescore 3gram.arpa --old_lm 2gram.arpa"
word_times=false       # true: times of the recognized words too, as FOLDER/ctm of each part
test_sets="dev test"
results=               # results table as JSON; default EXPDIR/results.json, or EXPDIR/results_lfmmi.json...
nist_sets=""           # test sets with stm and glm, scored by NIST's rules too: stage 13
dry_run=false          # true: show every command, and check what the recipe needs
needs=""               # of a dry run's check: further options for espnet-quant4 check
data_check_opts=""     # with which local/data.sh checks the corpus and writes nothing; "" where it cannot
num_nodes=1            # machines of a training, with --ngpu
# With --data_by asr.sh only
data_by=prepare.py     # asr.sh: stages 1 to 4 by ESPnet's asr.sh, of the checkout ESPNET_ROOT
inference_nj=
audio_format=wav       # of stage 3: wav or flac
nlsyms_txt=none
espnet_args=""         # further options for asr.sh

help="Usage: ./run.sh [--OPTION VALUE]...
Options and their defaults stand at the top of egs/common/hybrid.sh. Stages:
  1 data  2 speed perturbation  3 format  4 remove long/short, features  5 lexicon and topology
  6 language model  7 monophone GMM  8 triphone GMM and decoding graph  9 alignment
  10 statistics  11 training (FP32, then calibration and quantization-aware training)
  12 decoding  13 scoring  14 packing (only when asked for: --stop_stage 14)"

. "$(dirname "${BASH_SOURCE[0]}")/driver.sh"
parse_options "$@"
one_of criterion ce lfmmi
one_of data_by prepare.py asr.sh
one_of dry_run true false
one_of qat true false scratch
feats_options utterance_mvn
check_jobs
one_of realign true false
one_of decode_gmm true false
one_of word_times true false
if [ "$qat" = scratch ] && [ "$criterion" = lfmmi ]; then
    echo "run.sh: --qat scratch is for frame cross-entropy: --criterion ce" >&2
    exit 2
fi
if [ -n "$kaldi_ali" ] && [ -z "$graph" ]; then
    echo "run.sh: --kaldi_ali $kaldi_ali wants the graph of the same tree too: --graph DIR" >&2
    exit 2
fi
if [ -n "$graph" ] && [ -z "$kaldi_ali" ]; then
    echo "run.sh: --graph $graph is for the tree of alignments: --kaldi_ali DIR" >&2
    exit 2
fi
if [ -n "$kaldi_ali" ] && [ "$realign" = true ]; then
    echo "run.sh: --kaldi_ali: a network's own alignment wants this recipe's lexicon; --realign false" >&2
    exit 2
fi
if [ -n "$kaldi_ali" ] && [ "$word_times" = true ]; then
    echo "run.sh: --kaldi_ali: times of words want this recipe's lexicon; --word_times false" >&2
    exit 2
fi
case " $schemes " in *" fp32 "*|"  ") ;; *)
    echo "run.sh: --schemes $schemes: every system starts from fp32; add it" >&2; exit 2 ;;
esac

# Also what only uses ESPnet's run.pl and its like finds them so.
if [ -n "${ESPNET_ROOT:-}" ]; then "$common/setup_espnet.sh" .; fi
. ./path.sh
. ./cmd.sh
check_python
train_set=train valid_set=dev
lexicon=${lexicon:-$datadir/local/dict/lexicon.txt}
lang=$datadir/lang
text=$datadir/local/train_text    # what the lexicon is checked with and the language model counts
lm=$expdir/lm/${lm_order}gram.arpa
# To a graph of another Kaldi belongs its own language model, for --rescore_args.
if [ -n "$rescore_order" ] && [ -z "$kaldi_ali" ]; then
    rescore_args="--lm_rescore $expdir/lm/${rescore_order}gram.arpa --old_lm $lm $rescore_args"
fi
mono=$expdir/mono
triphone=$expdir/tri1
ali=$expdir/tri1_ali
stats=$expdir/hybrid_stats
kaldi_graph=$graph
graph=$triphone/graph
[ -n "$kaldi_ali" ] && ali=$expdir/kaldi_ali graph=$expdir/kaldi_graph decode_gmm=false
if [ "$criterion" = lfmmi ]; then
    inference_config=${inference_config:-conf/decode_hybrid_lfmmi.yaml}
    acoustic_scale=$lfmmi_acoustic_scale lm_scales=$lfmmi_lm_scales
else
    inference_config=${inference_config:-conf/decode_hybrid.yaml}
fi

# Whether a file is there and none of the others is newer: up_to_date FILE INPUT...
up_to_date() {
    local made=$1 input
    shift
    [ "$dry_run" = false ] || return 1
    [ -e "$made" ] || return 1
    for input in "$@"; do [ "$input" -nt "$made" ] && return 1; done
    return 0
}

# What a stage that keeps a record says in its log of what was there: kept_or_why LOG
kept_or_why() {
    [ "$dry_run" = true ] || sed -n '/there already\|made anew/{s/.*INFO: //;p;}' "$1"
}

# One step of the GMM: gmm STEP OUTPUT OPTION... The command itself knows what it was made of, and
# leaves it as it is or makes it anew; so do those of stages 5, 6 and 8.
gmm() {
    local step=$1 output=$2
    shift 2
    log "$output: $step (log: $output/$step.log)"
    # shellcheck disable=SC2086
    logged $train_cmd "$output/$step.log" $python -m espnet_quant4.bin.hybrid_gmm "$step" \
        --output "$output" --lang "$lang" "$@"
    kept_or_why "$output/$step.log"
}

# Takes the alignment of a part from the user's own Kaldi.
import_alignment() {
    local part=$1 source=$kaldi_ali
    [ "$part" = dev ] && source=${kaldi_ali_dev:-$kaldi_ali}
    # shellcheck disable=SC2086
    run $python -m espnet_quant4.bin.hybrid_import alignments --ali "$source" --model "$kaldi_ali" \
        --data "$dumpdir/raw/$part" --output "$ali/$part" $import_args
}

. "$common/hybrid_training.sh"
. "$common/hybrid_decoding.sh"

if [ "$data_by" = asr.sh ]; then
    speed_perturb_by=asr.sh
    . "$common/espnet_passes.sh"
    prepare_through_espnet 4
else
    prepare_data
fi
# shellcheck disable=SC2086
if doing 4; then write_features $train_set dev $test_sets; fi

if doing 5 && [ -z "$kaldi_ali" ]; then
    log "stage 5: lexicon and topology"
    if [ "$dry_run" = false ]; then
        mkdir -p "$(dirname "$text")"
        cmp -s "$datadir/train/text" "$text" || cp "$datadir/train/text" "$text"
    fi
    # shellcheck disable=SC2086
    run $python -m espnet_quant4.bin.hybrid_lang --lexicon "$lexicon" --text "$text" \
        --output "$lang" $lang_args
fi

if doing 6 && [ -z "$kaldi_ali" ]; then
    log "stage 6: language model"
    run mkdir -p "$expdir/lm"
    for order in $lm_order $rescore_order; do
        # shellcheck disable=SC2086
        run $python -m espnet_quant4.bin.hybrid_lm --text "$text" --lang "$lang" --order "$order" \
            --output "$expdir/lm/${order}gram.arpa" $lm_args
    done
fi

if doing 7 && [ -z "$kaldi_ali" ]; then
    log "stage 7: monophone GMM"
    # shellcheck disable=SC2086
    gmm mono "$mono" --data "$dumpdir/raw/$train_set" --seed "$seed" $mono_args
fi

if doing 8 && [ -z "$kaldi_ali" ]; then
    log "stage 8: triphone GMM and graph"
    # shellcheck disable=SC2086
    gmm triphone "$triphone" --data "$dumpdir/raw/$train_set" \
        --alignments "$mono" --leaves "$leaves" --gaussians "$gaussians" --seed "$seed" \
        $triphone_args
    # shellcheck disable=SC2086
    logged $train_cmd "$graph/hybrid_graph.log" $python -m espnet_quant4.bin.hybrid_graph \
        --lang "$lang" --lm "$lm" --gmm "$triphone" --output "$graph"
    kept_or_why "$graph/hybrid_graph.log"
fi

if doing 9; then
    log "stage 9: alignment"
    for part in $train_set dev; do
        if [ -n "$kaldi_ali" ]; then import_alignment "$part"
        else
            gmm align "$ali/$part" --data "$dumpdir/raw/$part" --model "$triphone"
        fi
    done
    if [ -n "$kaldi_ali" ]; then
        run $python -m espnet_quant4.bin.hybrid_import graph --graph "$kaldi_graph" \
            --model "$kaldi_ali" --output "$graph"
    fi
fi

if doing 10 && [ -n "$schemes" ]; then
    log "stage 10: statistics"
    for part in $train_set dev; do
        [ "$dry_run" = false ] || continue
        # What could not be aligned is left out by not being listed.
        awk 'NR == FNR { aligned[$1]; next } $1 in aligned' "$ali/$part/pdf_ids" \
            "$dumpdir/raw/$part/utt2num_samples" > "$ali/$part/utt2num_samples"
    done
    if up_to_date "$stats/train/feats_stats.npz" "$ali/$train_set/pdf_ids" "$ali/dev/pdf_ids"; then
        log "$stats: there already"
    else
        # shellcheck disable=SC2046,SC2086
        logged $train_cmd "$stats/stats.log" $python -m espnet_quant4.bin.hybrid_train \
            --collect_stats true --ngpu 0 --config "$hybrid_config" --normalize none \
            --batch_type unsorted --batch_size 8 --output_dir "$stats" $(data_options "$ali") \
            --train_shape_file "$ali/$train_set/utt2num_samples" \
            --valid_shape_file "$ali/dev/utt2num_samples"
    fi
fi

if doing 11 && [ -n "$schemes" ]; then
    log "stage 11: training"
    train_float
    args=$hybrid_args quantize "$prefix" \
        "espnet_quant4.bin.main calibrate --task hybrid" espnet_quant4.bin.hybrid_train
    for scheme in $schemes; do network_prior "${prefix}_$(system_of "$scheme")"; done
fi

if doing 12; then
    log "stage 12: decoding"
    if [ "$decode_gmm" = true ]; then
        for part in $parts; do gmm_scores "$triphone/$inference_name/$part" "$part"; done
        search "$triphone/$inference_name" "$gmm_acoustic_scale" "$gmm_lm_scales"
    fi
    for scheme in $schemes; do
        system=$(system_of "$scheme")
        output=${prefix}_$system
        for inference in $(inferences_of "$system"); do
            folder=$(decoding_folder "$output" "$inference")
            for part in $parts; do network_scores "$output" "$inference" "$folder/$part" "$part"; done
            search "$folder" "$acoustic_scale" "$lm_scales"
        done
    done
fi

if doing 13; then
    log "stage 13: scoring"
    systems=()
    for scheme in $schemes; do systems+=("${prefix}_$(system_of "$scheme")"); done
    [ "$decode_gmm" = true ] && systems+=(--gmm "$triphone")
    # shellcheck disable=SC2086
    run $python -m espnet_quant4.bin.hybrid_results --systems "${systems[@]}" --parts $test_sets \
        --dumpdir "$dumpdir/raw" --inference "$inference_name" --model "$inference_model" \
        --output "$results"
    for part in $nist_sets; do hub5_score "$part"; done
fi

if doing 14; then
    log "stage 14: packing"
    for scheme in $schemes; do
        output=${prefix}_$(system_of "$scheme")
        run $python -m espnet_quant4.bin.hybrid_pack --hybrid_train_config "$output/config.yaml" \
            --hybrid_model_file "$output/$inference_model" --log_prior "$output/log_prior" \
            --outpath "$output/model.zip"
    done
fi

[ "$dry_run" = false ] || check_needs
