#!/usr/bin/env bash
# Stage 13 of asr.sh calls it: scores what a system has decoded of Hub5 2000 (and RT-03) by NIST's rules.
#   local/score.sh EXPERIMENT
set -euo pipefail
experiment=${1:?usage: local/score.sh EXPERIMENT}
. ./path.sh
for part in eval2000:"Switchboard=sw_ CallHome=en_" rt03:"Switchboard=sw_ Fisher=fsh_"; do
    data=data/${part%%:*}
    for decoded in "$experiment"/*/"${part%%:*}"; do
        if [ ! -e "$decoded/text" ]; then continue; fi
        # shellcheck disable=SC2086
        python3 -m espnet_quant4.bin.main hub5 --stm "$data/stm" --glm "$data/glm" \
            --hyp "$decoded/text" --segments "$data/segments" --parts ${part#*:} \
            --output "$decoded/score_hub5"
    done
done
