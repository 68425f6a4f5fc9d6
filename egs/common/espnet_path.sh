# What ESPnet's scripts find by name, for a recipe that runs through a checkout ($ESPNET_ROOT). Sourced
# by the recipes' path.sh, as ESPnet's own path.sh would be; MAIN_ROOT is ESPnet's name for it.
MAIN_ROOT=$ESPNET_ROOT
export MAIN_ROOT
export LC_ALL=C
if [ -f "$MAIN_ROOT/tools/activate_python.sh" ]; then . "$MAIN_ROOT/tools/activate_python.sh"; fi
# These name variables that may not be set.
set +u
if [ -f "$MAIN_ROOT/tools/extra_path.sh" ]; then . "$MAIN_ROOT/tools/extra_path.sh"; fi
if [ -f local/path.sh ]; then . local/path.sh; fi
set -u
# ESPnet's scripts call python3, which has to be the Python that runs the recipe.
case ${python:-} in */*) PATH=$(cd "$(dirname "${python%% *}")" && pwd):$PATH ;; esac
# Debian's sclite and hubscr.pl.
if [ -d /usr/lib/sctk/bin ]; then PATH=$PATH:/usr/lib/sctk/bin; fi
export PATH=$PWD/utils:$PATH
