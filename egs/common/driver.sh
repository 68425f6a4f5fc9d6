# What the stage drivers of the recipes (asr.sh, hybrid.sh) have in common. Sourced by them, after
# their options have their defaults.

# Exported for cmd.sh, which ESPnet's asr.sh reads too.
common=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export common
# What messages begin with: a recipe's run.sh calls asr.sh or hybrid.sh.
case ${0##*/} in asr.sh|hybrid.sh) caller=run.sh ;; *) caller=${0##*/} ;; esac
log() { echo "$(date '+%H:%M:%S') $*"; }
doing() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]; }

# Prints each of its arguments, of equal ones the first.
each_once() { printf '%s\n' "$@" | awk '!seen[$0]++'; }

# Sets a variable for each --NAME VALUE; what has no default is no option.
parse_options() {
    # In capitals, which no option has.
    local NAME
    while [ $# -gt 0 ]; do
        case $1 in
            -h|--help) echo "$help"; exit 0 ;;
            --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
        esac
        NAME=${1#--}
        if [ "$NAME" = "$1" ] || [ -z "${!NAME+set}" ] || [[ ! $NAME =~ ^[a-z_]+$ ]]; then
            echo "$caller: unknown option $1; the options stand at the top of" \
                "egs/$(basename "$(cd "$(dirname "$0")" && pwd)")/$(basename "$0")" >&2
            exit 2
        fi
        if [ $# -lt 2 ]; then echo "$caller: $1 wants a value" >&2; exit 2; fi
        printf -v "$NAME" '%s' "$2"
        shift 2
    done
}

# Refuses an option's value that is none of the others: one_of NAME CHOICE...
one_of() {
    local NAME=$1 CHOICE
    shift
    for CHOICE in "$@"; do [ "${!NAME}" = "$CHOICE" ] && return 0; done
    echo "run.sh: --$NAME ${!NAME}; valid: $(sed 's/ /, /g' <<< "$*")" >&2
    exit 2
}

# Refuses options that are no whole numbers: whole_numbers NAME...
whole_numbers() {
    local NAME
    for NAME in "$@"; do
        [[ ${!NAME} =~ ^[0-9]+$ ]] && continue
        echo "run.sh: --$NAME ${!NAME}; valid: a whole number" >&2
        exit 2
    done
}

# Checks the options that say how many: jobs side by side are for CPUs, since on GPUs ESPnet's launcher
# starts one training, with all the GPUs that were asked for.
check_jobs() {
    whole_numbers stage stop_stage ngpu nj train_jobs num_nodes
    [ "$train_jobs" -gt 1 ] && [ "$ngpu" -gt 0 ] || return 0
    echo "run.sh: --train_jobs $train_jobs with --ngpu $ngpu: systems are trained side by side on CPUs only," \
        "and on GPUs one after the other; valid: --train_jobs 1, or --ngpu 0" >&2
    exit 2
}

# Refuses a Python that lacks the plugin or, where more than commands is wanted of it, ESPnet.
check_python() {
    local wanted="espnet_quant4 espnet2" missing
    # What else is missing a dry run lists.
    [ "$dry_run" = false ] || wanted=espnet_quant4
    # shellcheck disable=SC2086
    missing=$($python -c '
import importlib.util, sys
print(*(name for name in sys.argv[1:] if importlib.util.find_spec(name) is None))' $wanted) ||
        missing="no Python that runs"
    [ -n "$missing" ] || return 0
    echo "$caller: --python $python is $(type -P "${python%% *}" || echo "no program")," \
        "which lacks: $missing. Name the Python of the environment in which espnet_quant4 is" \
        "installed: --python /path/to/environment/bin/python" >&2
    exit 2
}

# A dry run shows its commands and changes nothing.
dry_run=${dry_run:-false}

# Runs a command; a dry run shows it instead.
run() {
    if [ "$dry_run" = false ]; then "$@"; return; fi
    printf '    '
    printf '%q ' "$@"
    echo
}

# Runs a command, or several with JOB=FIRST:LAST before the log, under one of cmd.sh's runners.
logged() {
    local status=0
    run "$@" || status=$?
    if [ $status -ne 0 ]; then
        echo "run.sh: failed with exit status $status: $*" >&2
        exit $status
    fi
}

# Runs a training: train_job LOG COMMAND... On GPUs ESPnet's launcher asks $cuda_cmd for them, and starts
# a process for each, on --num_nodes machines.
train_job() {
    local log=$1
    shift
    if [ "$ngpu" -gt 0 ]; then
        # shellcheck disable=SC2154
        logged $python -m espnet2.bin.launch --cmd "$cuda_cmd" --log "$log" --ngpu "$ngpu" \
            --num_nodes "$num_nodes" --init_file_prefix "$(dirname "$log")/.dist_init_" \
            --multiprocessing_distributed true -- "$@"
    else
        # shellcheck disable=SC2086
        logged $train_cmd "$log" "$@"
    fi
}

# Runs a command for each system, JOB standing for its name, train_jobs of them at a time, which
# check_jobs allows on CPUs only. More than one needs a runner that takes JOB=NAME,NAME. each_system "SYSTEM..." RUN LOG COMMAND..., where RUN is
# train_job, or logged for what needs no GPU.
each_system() {
    local systems=$1 runner=$2 system
    shift 2
    [ "$runner" = logged ] && runner="logged $train_cmd"
    if [ "$train_jobs" -gt 1 ] && [ "$(wc -w <<< "$systems")" -gt 1 ]; then
        # shellcheck disable=SC2086
        OMP_NUM_THREADS=$(($(nproc) > train_jobs ? $(nproc) / train_jobs : 1)) \
            logged $train_cmd --jobs "$train_jobs" "JOB=$(tr -s ' ' ',' <<< "$systems")" "$@"
    else
        # shellcheck disable=SC2086
        for system in $systems; do $runner "${@//JOB/$system}"; done
    fi
}

# What a dry run says last: the corpus, programs, packages and room that are missing.
check_needs() {
    local status=0 programs="bash awk perl"
    if [ -n "${ESPNET_ROOT:-}" ]; then programs+=" bc sclite"; fi
    if [ "${speed_perturb_by:-}" = asr.sh ] && [ -n "$speed_perturb_factors" ]; then programs+=" sox"; fi
    log "what the recipe needs"
    # shellcheck disable=SC2086
    $python -m espnet_quant4.bin.main check --programs $programs $needs || status=1
    if [ -n "$data_check_opts" ]; then
        log "corpus"
        # shellcheck disable=SC2086
        local/data.sh --python "$python" $local_data_opts $data_check_opts || status=1
    fi
    return $status
}

# Stages 1 to 4: from local/data.sh to $dumpdir/raw/PART, and what training reads as $train_set.
prepare_data() {
    local part parts limit written=$train_set
    [ -n "$speed_perturb_factors" ] && train_set+=_sp
    # shellcheck disable=SC2086
    parts=$(each_once "$train_set" "$valid_set" $test_sets)

    if doing 1; then
        log "stage 1: data"
        # shellcheck disable=SC2086
        run local/data.sh --python "$python" --data "$datadir" $local_data_opts
    fi

    if doing 2; then
        log "stage 2: speed perturbation of $written: ${speed_perturb_factors:-none}"
        if [ -n "$speed_perturb_factors" ]; then
            # shellcheck disable=SC2086
            run $python "$common/prepare.py" perturb "$datadir/$written" "$datadir/$train_set" --fs "$fs" \
                --factors $speed_perturb_factors
        fi
    fi

    if doing 3; then
        log "stage 3: format"
        for part in $parts; do
            run $python "$common/prepare.py" format "$datadir/$part" "$dumpdir/raw/org/$part" --fs "$fs"
        done
    fi

    if doing 4; then
        log "stage 4: remove long and short utterances"
        for part in $parts; do
            limit=$max_wav_duration
            # The limit is for the cost of training; what is scored is scored as a whole.
            [ "$part" != "$train_set" ] && limit=1000000
            run $python "$common/prepare.py" filter "$dumpdir/raw/org/$part" "$dumpdir/raw/$part" \
                --fs "$fs" --min_seconds "$min_wav_duration" --max_seconds "$limit"
        done
    fi
}

# Of both drivers' --feats_type, --num_mels and --feats_normalize: what networks read, checked and with
# the default of the last, which raw names: feats_options NORMALIZE_OF_RAW
feats_options() {
    one_of feats_type raw fbank
    if [ "$feats_type" = raw ]; then feats_normalize=${feats_normalize:-$1}; fi
    feats_normalize=${feats_normalize:-none}
    one_of feats_normalize utterance_mvn global_mvn none
}

# Writes the features of parts, where networks do not read waveforms: write_features PART...
write_features() {
    local part
    [ "$feats_type" = fbank ] || return 0
    for part in $(each_once "$@"); do
        run $python -m espnet_quant4.bin.hybrid_features --data "$dumpdir/raw/$part" \
            --output "$dumpdir/fbank/$part" --num_mels "$num_mels"
    done
}

# What a network reads of a part: its list, which name ESPnet knows it by, and as what type.
speech_of() {
    if [ "$feats_type" = fbank ]; then echo "$dumpdir/fbank/$1/feats.scp,speech,kaldi_ark"
    else echo "$dumpdir/raw/$1/wav.scp,speech,sound"; fi
}

# What ESPnet has to be told of features, for there is no frontend that knows.
input_options() { [ "$feats_type" = raw ] || echo "--input_size $num_mels"; }

# And of their normalization in training: normalize_options STATISTICS
normalize_options() {
    echo "--normalize $feats_normalize"
    [ "$feats_normalize" != global_mvn ] || echo "--normalize_conf stats_file=$1/train/feats_stats.npz"
}

system_of() { basename "${1%.yaml}"; }

# The file of a scheme: the one named, or one of those that recipes share.
scheme_file() {
    local system file=$1
    system=$(system_of "$1")
    [ -e "$file" ] || file=$common/../../conf/scheme/$system.yaml
    if [ ! -e "$file" ]; then
        echo "run.sh: --schemes: no scheme $system; valid: a YAML file, or one of" >&2
        (cd "$common/../../conf/scheme" && echo ./*.yaml) >&2
        exit 2
    fi
    echo "$file"
}

# Puts a scheme's file into its system's folder, unless that was started from another FP32 model:
# take_scheme SCHEME OUTPUT. $fp32 is the checkpoint that the system starts from.
take_scheme() {
    local scheme=$1 output=$2 file
    if [ "$fp32" -nt "$output/calibrated.pth" ] && [ -e "$output/calibrated.pth" ]; then
        echo "run.sh: $output was started from an earlier $fp32." >&2
        echo "Remove $output to train it again, or choose another --expdir" >&2
        exit 1
    fi
    file=$(scheme_file "$scheme")
    [ "$dry_run" = false ] || return 0
    mkdir -p "$output"
    cmp -s "$file" "$output/scheme.yaml" || cp "$file" "$output/scheme.yaml"
}

# Calibrates, and with --qat true trains, the quantized systems PREFIX_SCHEME of $schemes, from PREFIX_fp32:
# quantize PREFIX CALIBRATE TRAIN, the last two the modules' names with first options. The driver's
# train_options CONFIG OUTPUT says what all its trainings have in common, and train_from_scratch OUTPUT
# OPTION... trains in the way of the FP32 system, for --qat scratch.
quantize() {
    local prefix=$1 calibrate=$2 trainer=$3 fp32=$1_fp32/$inference_model
    local scheme system output to_calibrate="" to_train=""
    for scheme in $schemes; do
        system=$(system_of "$scheme")
        [ "$system" = fp32 ] && continue
        output=${prefix}_$system
        take_scheme "$scheme" "$output"
        [ "$qat" = scratch ] || [ -e "$output/calibrated.pth" ] || to_calibrate+=" $system"
        if [ -e "$output/$inference_model" ]; then log "$output: trained already"
        else to_train+=" $system"; fi
    done
    local options=(--model_conf "scheme=${prefix}_JOB/scheme.yaml")
    if [ -n "$to_calibrate" ]; then
        log "calibration:$to_calibrate (log: ${prefix}_*/calibrate.log)"
        # shellcheck disable=SC2046,SC2086
        each_system "$to_calibrate" logged "${prefix}_JOB/calibrate.log" $python -m $calibrate \
            $(train_options "$qat_config" "${prefix}_JOB") "${options[@]}" \
            --init_param "$fp32" --batches "$calibration_batches" \
            --output "${prefix}_JOB/calibrated.pth"
        for system in $to_calibrate; do
            log "${prefix}_$system: clips of activations"
            run sed -n '/^ *clip  bits/,/^saved/p' "${prefix}_$system/calibrate.log"
        done
    fi
    [ -n "$to_train" ] || return 0
    case $qat in
        scratch)
            for system in $to_train; do
                train_from_scratch "${prefix}_$system" --model_conf "scheme=${prefix}_$system/scheme.yaml"
            done ;;
        false)
            # ESPnet writes the model's config.yaml and stops there.
            # shellcheck disable=SC2046,SC2086
            each_system "$to_train" logged "${prefix}_JOB/config.log" $python -m $trainer \
                $(train_options "$qat_config" "${prefix}_JOB") "${options[@]}" --dry_run true
            for system in $to_train; do
                run cp "${prefix}_$system/calibrated.pth" "${prefix}_$system/$inference_model"
            done ;;
        true)
            log "quantization-aware training:$to_train (log: ${prefix}_*/train.log)"
            # shellcheck disable=SC2046,SC2086
            each_system "$to_train" train_job "${prefix}_JOB/train.log" $python -m $trainer \
                $(train_options "$qat_config" "${prefix}_JOB") --resume true "${options[@]}" \
                --init_param "${prefix}_JOB/calibrated.pth" $args $qat_args ;;
    esac
}

# How a system is decoded: FP32 in one way, quantized ones in each of $inferences.
inferences_of() { if [ "$1" = fp32 ]; then echo emulated; else echo "$inferences"; fi; }

# Cuts an utterance list into lists FOLDER/logdir/keys.JOB.scp; prints how many.
split_keys() {
    local list=$1 folder=$2 utterances jobs job
    if [ "$dry_run" = true ]; then echo "$nj"; return; fi
    utterances=$(wc -l < "$list")
    jobs=$((nj < utterances ? nj : utterances))
    mkdir -p "$folder/logdir"
    for job in $(seq "$jobs"); do
        awk -v n="$jobs" -v j="$job" 'NR % n == j % n' "$list" > "$folder/logdir/keys.$job.scp"
    done
    echo "$jobs"
}
