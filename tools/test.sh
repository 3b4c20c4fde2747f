#!/bin/sh
# Builds everything optimised and runs all tests. Installs what is missing.
set -eu
cd "$(dirname "$0")/.."
tools/install-packages.sh chromium
# The independent reader of packages is tested where its two modules can be had.
if [ ! -x .test-python/bin/python ]; then
    python3 -m venv .test-python && .test-python/bin/pip install --quiet --disable-pip-version-check \
        zstandard==0.25.0 numpy==2.4.6 safetensors==0.8.0 || rm -rf .test-python
fi
if [ -x .test-python/bin/python ]; then
    TRIPS_PYTHON=$PWD/.test-python/bin/python
    export TRIPS_PYTHON
fi
swift build -c release --build-tests

# The report of the sample must load in a browser.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sample=Tests/Fixtures/sample
.build/release/trips-convert "$sample/albef.onnx" --select 2,5 -o "$work/sample.trips" > /dev/null
.build/release/trips-verify "$work/sample.trips" --golden "$sample/golden-select.safetensors" --intermediates \
    --report "$work/report.html" > /dev/null
(cd "$work" && "$OLDPWD/tools/check_report.sh" report.html)

swift test -c release --skip-build
