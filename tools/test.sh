#!/bin/sh
# Checks the modules' imports, builds everything optimised and runs all tests. Installs what is missing.
set -eu
cd "$(dirname "$0")/.."
tools/install-packages.sh chromium python3 python3-venv

# The independent reader of packages needs three Python modules. Without them its tests are skipped, which is said.
pins=$(grep -E '^(numpy|safetensors|zstandard)==' tools/requirements.txt)
skipped=
if [ ! -x .test-python/bin/python ] || [ "$(cat .test-python/pins 2>/dev/null)" != "$pins" ]; then
    rm -rf .test-python
    # shellcheck disable=SC2086
    if python3 -m venv .test-python && .test-python/bin/pip install --quiet --disable-pip-version-check $pins; then
        echo "$pins" > .test-python/pins
    else
        rm -rf .test-python
        skipped="WARNING: no Python environment with $(echo "$pins" | tr '\n' ' '): the tests of tools/read_trips.py may be skipped"
        echo "$skipped" >&2
    fi
fi
if [ -z "$skipped" ]; then
    TRIPS_PYTHON=$PWD/.test-python/bin/python
    export TRIPS_PYTHON
fi
tools/check-imports.sh
swift build -c release --build-tests

# The report of the sample must load in a browser.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sample=Tests/Fixtures/sample
.build/release/trips-convert "$sample/albef.onnx" --select 2,5 -o "$work/sample.trips" > /dev/null
.build/release/trips-verify "$work/sample.trips" --golden "$sample/golden-select.safetensors" --intermediates \
    --report "$work/report.html" > /dev/null
(cd "$work" && "$OLDPWD/tools/check_report.sh" report.html)

TRIPS_REQUIRE_TOOLS=1 swift test -c release --skip-build
# A warning only: how help is laid out depends on the version of the argument parser.
tools/describe_tools.sh --check || true
[ -z "$skipped" ] || echo "$skipped" >&2
