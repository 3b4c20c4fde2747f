#!/bin/sh
# Compiles the kernels for 64-bit ARM and holds them beside their references under emulation, as processors of several ages; before
# that the paths of this processor, which shows that the check is right. Installs what is missing.
set -eu
cd "$(dirname "$0")/.."
tools/install-packages.sh qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
build() {
    clang "$@" -std=gnu17 -O2 -Wall -Wextra -ISources/Kernels/include Sources/Kernels/*.c tools/check-kernels.c -lm -o "$out/check"
}
echo 'this processor'
build
"$out/check"
build --target=aarch64-linux-gnu -fuse-ld=lld -static
for processor in cortex-a72 neoverse-n1 max; do
    echo "emulated: $processor"
    qemu-aarch64 -cpu "$processor" "$out/check"
done
