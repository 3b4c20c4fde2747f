#!/bin/sh
# Checks that each module's Swift files import only what Package.swift lists among the module's dependencies.
set -eu
cd "$(dirname "$0")/.."
declared=$(swift package describe --type text | awk '
    /^    Name: / { name = $2; list = 0 }
    /^    (Target|Product) dependencies:/ { list = 1; next }
    /^    [A-Z]/ { list = 0 }
    list { print name, $1 }
')
status=0
for folder in Sources/*/; do
    module=$(basename "$folder")
    imports=$(cat "$folder"*.swift "$folder"*/*.swift 2> /dev/null | sed -n 's/^\(@[a-zA-Z_]* \)*import \([A-Za-z]*\).*/\2/p' | sort -u)
    for import in $imports; do
        case $import in Foundation | Glibc | Synchronization) continue ;; esac
        printf '%s\n' "$declared" | grep -qx "$module $import" || { echo "$module imports $import, which Package.swift does not list"; status=1; }
    done
done
exit $status
