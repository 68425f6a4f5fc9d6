# What both Switchboard recipes begin with: a checkout of ESPnet, and where the LDC's folders are. Sourced
# by their run.sh with its arguments.
if [ -z "${ESPNET_ROOT:-}" ] && [[ " $* " != *" --help "* ]]; then
    echo "run.sh: export ESPNET_ROOT=/path/to/espnet, a checkout of ESPnet: its asr.sh runs this recipe" >&2
    exit 2
fi
# db.sh says SWBD= where its user has entered nothing; the environment's then counts.
corpora=${SWBD:-}
. ./db.sh
export SWBD=${SWBD:-$corpora}
# For the check of a dry run.
folders="SWBD=$SWBD"
for name in LDC97S62 LDC2002S09 LDC2002T43 swb_ms98_transcriptions; do
    folders+=" $name=${SWBD:-.}/$name"
done
