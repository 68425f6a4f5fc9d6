#!/usr/bin/env bash
# Make the virtual environment that `make demo` and `make test` use; do nothing if it is there.
#
#   tools/setup_venv.sh [VENV]          VENV defaults to .venv
#
# It looks for an interpreter itself: 3.12 or newer for the current ESPnet, else 3.10 or 3.11 for
# the line before; on PATH, in the usual folders, and under pyenv, whose shims answer only where a
# version is selected. Environment variables:
#   QUANT4_PYTHON  an interpreter to take instead of looking for one
#   QUANT4_ESPNET  202611 or 202511: take only an interpreter for that ESPnet
#   QUANT4_DRY_RUN 1: say which interpreter it would take, and stop
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${1:-$root/.venv}
wanted=${QUANT4_ESPNET:-}

# What goes together. torch 2.13 demands a newer setuptools than ESPnet 202511 allows.
packages_for() {
    case $1 in
        202611) echo "espnet==202611 torch==2.13.* torchaudio==2.11.*" ;;
        202511) echo "espnet==202511 torch>=2.9,<2.13 torchaudio>=2.9" ;;
    esac
}
# The order of preference: what the project is developed on comes first.
pythons="3.12:202611 3.13:202611 3.11:202511 3.10:202511"

say() { echo "setup: $*"; }

# Prints an interpreter's version, such as 3.12, if it can make a working environment.
version_of() {
    # A shim of pyenv prints a page of help and fails; others may hang on a missing network home.
    timeout 20 "$1" -I -c '
import ctypes, ensurepip, ssl, sys, venv, zlib
print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}

# Where an interpreter of a version may be, best first.
candidates() {
    local version=$1 folder
    if [ -n "${QUANT4_PYTHON:-}" ]; then
        echo "$QUANT4_PYTHON"
        return
    fi
    command -v "python$version" || true
    command -v python3 || true
    for folder in "${PYENV_ROOT:-$HOME/.pyenv}" "$( (pyenv root) 2>/dev/null || true)" /opt/pyenv; do
        ls -d "$folder/versions/$version".*/bin/"python$version" 2>/dev/null | sort -rV || true
    done
    for folder in /usr/local/bin /usr/bin /opt/*/bin "$HOME"/.local/bin; do
        if [ -x "$folder/python$version" ]; then echo "$folder/python$version"; fi
    done
    # uv knows the interpreters that it has installed, and downloads none here.
    (uv python find --offline --no-python-downloads "$version") 2>/dev/null || true
}

find_python() {
    local pair version espnet path
    for pair in $pythons; do
        version=${pair%:*} espnet=${pair#*:}
        if [ -n "$wanted" ] && [ "$wanted" != "$espnet" ]; then continue; fi
        while read -r path; do
            if [ "$(version_of "$path")" = "$version" ]; then
                echo "$path $version $espnet"
                return
            fi
        done < <(candidates "$version")
    done
    return 1
}

# Everything that decides what is installed.
fingerprint() {
    (cd "$root" && cat setup.cfg setup.py pyproject.toml tools/setup_venv.sh && echo "$wanted") |
        sha256sum | cut -d ' ' -f 1
}

stamp=$venv/.setup-stamp
if [ -z "${QUANT4_DRY_RUN:-}" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(fingerprint)" ] &&
    "$venv/bin/python" -c "" 2>/dev/null; then
    exit 0
fi

if ! found=$(find_python); then
    {
        echo "No suitable Python${QUANT4_PYTHON:+ ($QUANT4_PYTHON is not one)}."
        echo "Needed: 3.12 or 3.13 (ESPnet 202611), or 3.10 or 3.11 (ESPnet 202511), with the modules"
        echo "venv, ensurepip, ssl and ctypes. Looked on PATH, under pyenv and in the usual folders."
        echo "Debian: apt-get install python3 python3-venv; pyenv: pyenv install 3.12. Another place:"
        echo "QUANT4_PYTHON=/path/to/python3.12 $0"
    } >&2
    exit 1
fi
read -r python version espnet <<< "$found"
say "Python $version ($python) with ESPnet $espnet"
if [ -n "${QUANT4_DRY_RUN:-}" ]; then exit 0; fi

if [ "$("$venv/bin/python" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])' \
    2>/dev/null)" != "$version" ]; then
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi
rm -f "$stamp"
say "installing into $venv (a few minutes; downloads about 1 GB the first time)"
read -ra packages <<< "$(packages_for "$espnet")"
install=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)
if "${install[@]}" uv && "$venv/bin/uv" --version > /dev/null 2>&1; then
    # Byte code at once: where Python is told to write none, ESPnet takes a minute to import.
    install=("$venv/bin/uv" pip install --quiet --compile-bytecode --python "$venv/bin/python")
else
    say "uv cannot be had; pip does the same, more slowly"
fi
extras=test,report,train,hybrid,swbd
[ "$espnet" = 202511 ] || extras+=,esp3    # which that ESPnet lacks
"${install[@]}" "${packages[@]}" -e "$root[$extras]"
# Only its quantizers are used, as an oracle in tests; what it depends on would replace numpy.
"${install[@]}" --no-deps fms-model-optimizer==0.8.7
"$venv/bin/python" -c "
import torch, espnet2, espnet_quant4
print('setup: ready: torch', torch.__version__, 'ESPnet', espnet2.__version__,
      'espnet_quant4', espnet_quant4.__version__)"
fingerprint > "$stamp"
