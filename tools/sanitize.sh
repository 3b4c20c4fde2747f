#!/bin/sh
# Runs tests under a sanitizer, in a build of their own.
#
#   tools/sanitize.sh thread|address [FILTER]     FILTER: a regular expression for names of tests; all where none is given
#
# Leaks are not looked for: Foundation leaves memory behind where it reads files and starts programs, and XCTest where it ends.
# The thread sanitizer does not see the standard library's Mutex: what it reports of variables inside `withLock`, and of memory that
# is handed from thread to thread through one (the weights that are kept, the packages' encoders), is no race.
set -eu
cd "$(dirname "$0")/.."
case "${1:-}" in
    thread | address) ;;
    *) echo "usage: tools/sanitize.sh thread|address [FILTER]" >&2; exit 64 ;;
esac
tools/install-packages.sh
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=0}"
exec swift test -c release --sanitize "$1" --scratch-path ".build/$1" ${2:+--filter "$2"}
