#!/bin/sh
# Installs what is missing, builds the tools, and takes the sample model the whole road: convert, quantize, verify.
set -eu
cd "$(dirname "$0")/.."
tools/install-packages.sh
swift build -c release
tools=$PWD/.build/release
sample=$PWD/Tests/Fixtures/sample
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
step() { printf '\n$ %s\n' "$*"; "$@"; }
cd "$out"
PATH=$tools:$PATH

step trips-convert "$sample/albef.onnx" --select 2,5 --keep-rate 0.7
step trips-verify albef.trips --golden "$sample/golden-select.safetensors" --intermediates
step trips-quantize --int8 albef.trips --calibration "$sample/golden.safetensors"
step trips-verify albef-int8.trips --golden "$sample/golden-select.safetensors" --min-snr 20
step trips-bench albef.trips --compare albef-int8.trips
printf '\nThe sample went the whole road. Your model next: README.md, "Your own model".\n'
