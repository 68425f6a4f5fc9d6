# Environment of the recipe. The Python that runs it is --python's (default: the one on PATH). ESPnet's
# modules come from the installed package; its scripts, for what runs through asr.sh, from the checkout
# that ESPNET_ROOT names.
export PYTHONUTF8=1
export PYTHONUNBUFFERED=1
if [ -n "${ESPNET_ROOT:-}" ]; then . ../../common/espnet_path.sh; fi
