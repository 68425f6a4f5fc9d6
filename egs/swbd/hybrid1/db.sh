# Where the corpora are, as in ESPnet's db.sh. An empty SWBD leaves the environment's as it is.
# SWBD holds LDC97S62, LDC2002S09, LDC2002T43 and swb_ms98_transcriptions (docs/switchboard.md).
SWBD=
