#!/bin/sh
# Fuzzes a reader (`onnx`: and what fuses its graphs) under AddressSanitizer and UndefinedBehaviorSanitizer.
#
#   tools/fuzz.sh                         names the targets
#   tools/fuzz.sh TARGET|all [SECONDS]    ten minutes each unless told otherwise
#
# A target is a folder tools/development/fuzz-TARGET with a main.swift that calls `fuzz`, and a line in Package.swift.
# Seeds come from tools/fuzz_seeds.py and tools/development/seeds/TARGET; the corpus that grows from them is kept in
# .build/fuzz/corpus/TARGET. What stops a reader is left in .build/fuzz/TARGET-*: shrink it with
# `fuzz-TARGET -minimize_crash=1 FILE`, and keep it in tools/development/seeds/TARGET.
set -eu
cd "$(dirname "$0")/.."
targets=$(ls -d tools/development/fuzz-* | sed 's|tools/development/fuzz-||')
if [ $# -eq 0 ]; then
    echo "$targets"
    exit 0
fi
[ "$1" = all ] || targets=$1
seconds=${2:-600}
build=.build/fuzz
for target in $targets; do
    # Coverage and checks of memory in all code; undefined behaviour is C's alone.
    TRIPS_DEVELOPMENT=1 swift build -c release --scratch-path "$build" --product "fuzz-$target" \
        -Xswiftc -sanitize=fuzzer,address \
        -Xcc -fsanitize=fuzzer-no-link,address,undefined -Xcc -fno-sanitize-recover=undefined
    corpus=$build/corpus/$target
    mkdir -p "$corpus" "tools/development/seeds/$target"
    status=0
    ${TRIPS_PYTHON:-python3} tools/fuzz_seeds.py "$target" "$corpus" || status=$?
    case $status in
        0) ;;
        69 | 127) echo "no new seeds for $target: Python or one of its modules is missing (TRIPS_PYTHON names another)" >&2 ;;
        *) exit "$status" ;;
    esac
    # One processor: readers then make no threads, and an input does the same each time.
    taskset -c 0 "$build/release/fuzz-$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=65536 \
        -print_final_stats=1 -artifact_prefix="$build/$target-" "$corpus" "tools/development/seeds/$target"
done
