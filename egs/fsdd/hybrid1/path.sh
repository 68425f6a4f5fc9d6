# Environment of the recipe. The Python that runs it is --python's (default: the one on PATH).
# An ESPnet checkout is not needed here: ESPnet's modules come from the installed package.
export PYTHONUTF8=1
export PYTHONUNBUFFERED=1
