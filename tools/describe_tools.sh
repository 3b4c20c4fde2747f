#!/bin/sh
# Writes docs/tools.md from the tools' --help.
#
#   tools/describe_tools.sh            writes it
#   tools/describe_tools.sh --check    fails where it is not what the tools say
#
# The tools are those of .build/release; TRIPS_BIN names another folder.
set -eu
cd "$(dirname "$0")/.."
bin=${TRIPS_BIN:-.build/release}
made=$(mktemp)
trap 'rm -f "$made"' EXIT
{
    printf '# The tools\n\nMade by `tools/describe_tools.sh` from `--help`. [guide.md](guide.md) shows them in use.\n'
    for tool in convert quantize verify inspect run bench; do
        printf '\n## trips-%s\n\n```\n' "$tool"
        # The parser breaks lines at the width that it finds.
        COLUMNS=100 "$bin/trips-$tool" --help | sed -e 's/ *$//' -e '${/^$/d}'
        printf '```\n'
    done
} > "$made"
if [ "${1:-}" = --check ]; then
    cmp -s "$made" docs/tools.md || { echo "docs/tools.md is not what --help says: run tools/describe_tools.sh" >&2; exit 1; }
else
    cat "$made" > docs/tools.md
fi
