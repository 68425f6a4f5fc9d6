#!/usr/bin/env bash
# Runs the C++ kernels under AddressSanitizer and UndefinedBehaviorSanitizer: a fuzzer in C++, then
# the Python tests of the binding on a library built likewise.
#
#   tools/sanitize.sh PYTHON FOLDER [CASES]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$1 folder=$2 cases=${3:-400}
compiler=${CXX:-c++}
mkdir -p "$folder"
library=$folder/libquant4.so
"$python" -m espnet_quant4.kernels.build --sanitize --output "$library"
flags=$("$python" -c "from espnet_quant4.kernels import build as b; print(*b.FLAGS, *b.SANITIZERS)")
# shellcheck disable=SC2086
$compiler $flags -Iespnet_quant4/kernels/csrc tests/kernels/fuzz_kernels.cpp "$library" \
    -Wl,-rpath,"$(realpath "$folder")" -pthread -o "$folder/fuzz_kernels"
"$folder/fuzz_kernels" "$cases" 1
"$folder/fuzz_kernels" "$cases" 2
# Python itself is not built so: the runtime comes first, and what Python leaves behind is its own.
LD_PRELOAD="$($compiler -print-file-name=libasan.so) $($compiler -print-file-name=libubsan.so)" \
ASAN_OPTIONS=detect_leaks=0 ESPNET_QUANT4_LIBRARY=$(realpath "$library") \
    "$python" -m pytest -q -p no:cacheprovider tests/kernels/test_native.py \
    tests/kernels/test_native_lstm.py tests/kernels/test_fake_quantize.py \
    tests/nn/test_fused_lstm.py \
    -k "not environment and not without and not fork and not every_instruction"
echo "sanitize: clean"
