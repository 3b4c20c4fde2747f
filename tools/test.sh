#!/bin/sh
# Builds everything optimised and runs all tests. Installs what is missing.
set -eu
cd "$(dirname "$0")/.."
tools/install-packages.sh
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
exec swift test -c release --skip-build
