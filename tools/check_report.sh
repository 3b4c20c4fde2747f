#!/bin/sh
# Loads a verification report in a headless browser: it must show its verdict and figures, and the browser must find no
# error in it. Needs Chromium (Debian: chromium).
#   tools/check_report.sh REPORT.html [SCREENSHOT.png]
set -eu
report=$(realpath "$1")
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
if [ -z "$browser" ]; then
    echo "skipped: no Chromium"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
headless="--headless --no-sandbox --disable-gpu --user-data-dir=$work/profile"
# shellcheck disable=SC2086
timeout 120 "$browser" $headless --enable-logging=stderr --dump-dom "file://$report" > "$work/dom" 2> "$work/log"
for part in 'class="verdict"' '<table' 'role="img"' 'Provenance'; do
    grep -q "$part" "$work/dom" || { echo "$report: no $part"; exit 1; }
done
if grep -E 'CONSOLE.*(error|Error|Refused)' "$work/log"; then
    echo "$report: the browser found errors"
    exit 1
fi
if [ $# -gt 1 ]; then
    # shellcheck disable=SC2086
    timeout 120 "$browser" $headless --hide-scrollbars --window-size=1180,2000 --screenshot="$2" "file://$report" 2> /dev/null
fi
echo "$1: verdict, tables and figures are there, no errors"
