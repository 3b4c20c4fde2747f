#!/bin/sh
# Installs the Debian packages that the build needs, and those named, where they are missing; checks for Swift 6.
set -eu
packages="libopenblas-dev libprotobuf-c-dev libzstd-dev zstd zlib1g-dev libjpeg62-turbo-dev libpng-dev pkg-config python3 python3-venv"
missing=
for package in $packages "$@"; do
    dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done
if [ -n "$missing" ]; then
    echo "installing:$missing"
    if [ "$(id -u)" = 0 ]; then run=; else run=sudo; fi
    $run apt-get update -qq
    # shellcheck disable=SC2086
    $run env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
command -v swift >/dev/null || { echo "Swift 6 is missing: install a toolchain and put it on the PATH" >&2; exit 69; }
