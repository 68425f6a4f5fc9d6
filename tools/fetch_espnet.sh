#!/usr/bin/env bash
# Fetch the scripts of ESPnet that its wheel lacks, egs2/TEMPLATE/asr1 with asr.sh, from the source
# distribution of the version that is installed; do nothing if they are there. A git checkout does as
# well: for recipes export ESPNET_ROOT.
#
#   tools/fetch_espnet.sh PYTHON FOLDER
set -euo pipefail

python=${1:?usage: tools/fetch_espnet.sh PYTHON FOLDER}
folder=${2:?usage: tools/fetch_espnet.sh PYTHON FOLDER}
version=$("$python" -c 'import importlib.metadata as m; print(m.version("espnet"))')
if [ "$(cat "$folder/.fetched" 2>/dev/null)" = "$version" ]; then exit 0; fi

rm -rf "$folder" "$folder.part"
mkdir -p "$folder.part"
echo "fetch_espnet: scripts of ESPnet $version into $folder"
# What it is built with is installed already.
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --no-build-isolation \
    --no-binary espnet --dest "$folder.part" "espnet==$version"
tar xzf "$folder.part/espnet-$version.tar.gz" -C "$folder.part" --strip-components 1 \
    "espnet-$version/egs2/TEMPLATE/asr1" "espnet-$version/tools" "espnet-$version/utils"
rm "$folder.part/espnet-$version.tar.gz"
echo "$version" > "$folder.part/.fetched"
mv "$folder.part" "$folder"
