#!/bin/sh
# Installs the Debian packages that the build needs, and those named, where they are missing; checks for Swift 6.
set -eu
packages="libopenblas-dev libprotobuf-c-dev libzstd-dev zstd zlib1g-dev libjpeg62-turbo-dev libpng-dev pkg-config"
missing=
for package in $packages "$@"; do
    # A package that was removed may still be known by its configuration files.
    state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
done
if [ -n "$missing" ]; then
    echo "installing:$missing"
    if [ "$(id -u)" = 0 ]; then run=; else run=sudo; fi
    $run apt-get update -qq
    # shellcheck disable=SC2086
    $run env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
version=$(swift --version 2>/dev/null | sed -n 's/.*Swift version \([0-9][0-9]*\).*/\1/p' | head -n 1)
if [ "${version:-0}" -lt 6 ]; then
    echo "Swift 6 is missing (found: ${version:-none}): install a toolchain and put it on the PATH" >&2
    exit 69
fi
