#!/bin/sh
# Measures the kernels beside OpenBLAS and oneDNN (libdnnl-dev) on one thread.
# usage: tools/bench-kernels.sh [fp32] [int8] [rest] [scalar|avx2|avx2vnni|avx512|avx512vnni|avx512amx|neon|neondot|neoni8mm]
set -eu
root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
${CC:-clang} -std=gnu17 -O2 -I"$root/Sources/Kernels/include" "$root"/Sources/Kernels/*.c "$root/tools/bench-kernels.c" \
    -o "$out/bench" $(pkg-config --cflags --libs openblas) -ldnnl -lm
OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 "$out/bench" "$@"
