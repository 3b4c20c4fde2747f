#!/bin/sh
# Installs what is missing, builds the tools, and runs the trained sample through the full pipeline: convert with and without
# patch selection, verify, quantize, ask about a picture, count right answers.
set -eu
cd "$(dirname "$0")/.."
tools/install-packages.sh
swift build -c release
tools=$PWD/.build/release
sample=$PWD/Tests/Fixtures/scenes
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
step() { printf '\n$ %s\n' "$*"; "$@"; }
cd "$out"
ln -s "$sample"/* .
PATH=$tools:$PATH

step trips-convert checkpoint.safetensors --output whole.trips --vocabulary vocab.txt
step trips-convert checkpoint.safetensors --output selected.trips --vocabulary vocab.txt --select 2,4 --keep-rate 0.5
step trips-verify selected.trips --golden golden-select.safetensors
step trips-quantize --int8 selected.trips --calibration golden-select.safetensors
step trips-verify selected-int8.trips --golden golden-select.safetensors --min-snr 20
step trips-run selected.trips --image scene.png --text "what color is behind the cactus ?" --answers answers.txt

# The right answers of a package, in a row of the table below.
row() {
  printf 'answering with %s\n' "$2" >&2
  found=$(trips-verify "$2" --accuracy test-set.safetensors --quiet | grep '^accuracy')
  right=$(echo "$found" | sed 's/.* right, \([0-9.]*\) %.*/\1/')
  time=$(echo "$found" | sed 's/.*, \([0-9.]*\) ms each.*/\1/')
  printf '%-34s %9s %% %8s MB %8s ms\n' "$1" "$right" "$(wc -c < "$2" | awk '{ printf "%.2f", $1 / 1e6 }')" "$time"
}
{
  row 'every patch' whole.trips
  row 'half of the patches, twice' selected.trips
  row 'the same, int8 weights' selected-int8.trips
} > table
printf '\n%-34s %11s %11s %11s\n' "$(grep -c '' answers.txt) answers, held-out test set" 'right' 'size' 'a question'
cat table
printf '\nThe sample passed the full pipeline. Next: README.md, "Your own model", and docs/guide.md.\n'
