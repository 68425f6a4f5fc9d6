#!/usr/bin/env bash
# Links what ESPnet's layout expects in a recipe's folder from the checkout that ESPNET_ROOT names.
#
#   ESPNET_ROOT=/path/to/espnet setup_espnet.sh RECIPE_FOLDER
#
# Nothing is copied, and git passes over the links. Run again for another checkout.
set -euo pipefail

folder=${1:?usage: ESPNET_ROOT=/path/to/espnet setup_espnet.sh RECIPE_FOLDER}
template=${ESPNET_ROOT:-}/egs2/TEMPLATE/asr1
if [ -z "${ESPNET_ROOT:-}" ] || [ ! -f "$template/asr.sh" ]; then
    {
        echo "setup.sh: ESPNET_ROOT=${ESPNET_ROOT:-} is no checkout of ESPnet: no egs2/TEMPLATE/asr1/asr.sh in it."
        echo "git clone --depth 1 https://github.com/espnet/espnet, and export ESPNET_ROOT=\$PWD/espnet"
    } >&2
    exit 1
fi
template=$(cd "$template" && pwd)
for name in asr.sh scripts pyscripts utils steps; do
    target=$folder/$name
    if [ -e "$target" ] && [ ! -L "$target" ]; then
        # A copy of a recipe whose links were followed.
        if diff -rq "$template/$name" "$target" > /dev/null 2>&1; then continue; fi
        echo "setup.sh: $target is there, no link, and differs from $template/$name;" \
            "move it out of the way" >&2
        exit 1
    fi
    ln -sfn "$template/$name" "$target"
done
# The options of queue.pl, slurm.pl and pbs.pl, to be changed for one's own cluster: what is no link to a
# checkout's is one's own.
mkdir -p "$folder/conf"
for name in queue.conf slurm.conf pbs.conf; do
    target=$folder/conf/$name
    case $(readlink "$target" || true) in
        */egs2/TEMPLATE/asr1/conf/"$name") ;;
        *) if [ -e "$target" ]; then continue; fi ;;
    esac
    ln -sfn "$template/conf/$name" "$target"
done
