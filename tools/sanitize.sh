#!/bin/sh
# Runs tests under a sanitizer, in a build of their own.
#
#   tools/sanitize.sh thread|address [FILTER]     FILTER: a regular expression for names of tests; all where none is given
#
# Leaks are not looked for: Foundation leaves memory behind where it reads files and starts programs, and XCTest where it ends.
# The thread sanitizer does not see the standard library's Mutex, and would take all that one guards for races. So it gets a copy
# of the sources in which a mutex is POSIX's. (Tests of the tools find none there, and say so.)
set -eu
cd "$(dirname "$0")/.."
case "${1:-}" in
    thread | address) ;;
    *) echo "usage: tools/sanitize.sh thread|address [FILTER]" >&2; exit 64 ;;
esac
tools/install-packages.sh python3
scratch=$PWD/.build/$1
sources=.
if [ "$1" = thread ]; then
    sources=$scratch/sources
    rm -rf "$sources"
    mkdir -p "$sources"
    git ls-files -z | tar --null -T - -cf - | tar -xf - -C "$sources"
    cp -p tools/development/PosixMutex.swift "$sources/Sources/Support"
    for file in $(cd "$sources" && grep -rlE '\bMutex[<(]' Sources Tests); do
        sed -i -E '0,/^import /s//import Support\nimport /; s/\bMutex([<(])/PosixMutex\1/g' "$sources/$file"
        # Nothing is built again that did not change.
        touch -r "$file" "$sources/$file"
    done
    # Empty arrays share one storage, into which the standard library writes the count 0.
    echo race:_swiftEmptyArrayStorage > "$scratch/suppressions"
    export TRIPS_SHARED="${TRIPS_SHARED:-$PWD/../shared}"
    export TSAN_OPTIONS="${TSAN_OPTIONS:-suppressions=$scratch/suppressions}"
fi
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=0}"
exec swift test -c release --sanitize "$1" --package-path "$sources" --scratch-path "$scratch" ${2:+--filter "$2"}
