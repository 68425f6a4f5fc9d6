#!/usr/bin/env bash
# Every stage of the Asterisk recipe on a handful of utterances with a tiny model, to see that they
# fit together; its error rates mean nothing.
#
#   PYTHON=... tools/smoke.sh FOLDER     FOLDER is emptied first
set -euo pipefail

# The plain driver, whose folders may be anywhere.
unset ESPNET_ROOT
python=${PYTHON:-python3}
out=${1:?a folder for what it writes is needed}
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")/../egs/asterisk_en/asr1" && pwd)
started=$SECONDS

rm -rf "$out"
mkdir -p "$out/conf"
out=$(cd "$out" && pwd)

"$python" - "$recipe/conf" "$out/conf" <<'PYTHON'
import sys
from pathlib import Path

import yaml

source, target = map(Path, sys.argv[1:])
for path in source.glob("train_asr_*.yaml"):
    conf = yaml.safe_load(path.read_text())
    conf["encoder_conf"].update(hidden_size=12, output_size=12, num_layers=2)
    if "decoder_conf" in conf:
        conf["decoder_conf"].update(hidden_size=12)
        conf["joint_net_conf"].update(joint_space_size=12)
    conf.update(max_epoch=1, keep_nbest_models=1, num_workers=0)
    (target / path.name).write_text(yaml.safe_dump(conf))
decode = yaml.safe_load((source / "decode_asr.yaml").read_text())
(target / "decode_asr.yaml").write_text(yaml.safe_dump({**decode, "beam_size": 1}))
PYTHON

run() {
    "$recipe/run.sh" --python "$python" --datadir "$out/data" --dumpdir "$out/dump" \
        --expdir "$out/exp" --asr_config "$out/conf/train_asr_fp32.yaml" \
        --ctc_config "$out/conf/train_asr_ctc.yaml" --qat_config "$out/conf/train_asr_qat.yaml" \
        --inference_config "$out/conf/decode_asr.yaml" --from_scratch true \
        --speed_perturb_factors "1.1" --calibration_batches 2 --nj 1 --train_jobs 2 --test_sets "dev test" "$@"
}

run --stage 1 --stop_stage 1
# Short utterances of each part: the test covers the stages, not the data.
for part in train:12 dev:3 test:3; do
    folder=$out/data/${part%:*}
    awk -v n="${part#*:}" 'NF >= 3 && NF <= 7 && kept++ < n' "$folder/text" > "$folder/text.part"
    mv "$folder/text.part" "$folder/text"
    for table in wav.scp utt2spk; do
        awk 'NR == FNR { keep[$1]; next } $1 in keep' "$folder/text" "$folder/$table" \
            > "$folder/$table.part"
        mv "$folder/$table.part" "$folder/$table"
    done
    awk '{ utterances[$2] = utterances[$2] " " $1 } END { for (s in utterances) print s utterances[s] }' \
        "$folder/utt2spk" > "$folder/spk2utt"
done
run --stage 2 --stop_stage 14

"$python" - "$out" <<'PYTHON'
import json
import sys
from pathlib import Path

out = Path(sys.argv[1])
results = json.loads((out / "exp" / "results.json").read_text())
systems = {row["system"] for row in results}
assert systems == {"fp32", "naive", "tailored"}, systems
for row in results:
    assert row["words"] > 0 and row["wer"] >= 0 and row["rtf"] > 0, row
size = {row["system"]: row["size_bytes"] for row in results}
assert size["naive"] < size["tailored"] < size["fp32"], size
packed = {p.parent.name for p in (out / "exp").glob("asr_*/*.zip")}
assert packed == {"asr_fp32", "asr_naive", "asr_tailored"}, packed
PYTHON
echo "smoke: every stage ran ($((SECONDS - started)) s)"
