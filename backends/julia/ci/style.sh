#!/usr/bin/env bash
# What of .JuliaFormatter.toml can be checked without the formatter, which is a Julia package: no tabs, no blanks at the end of a
# line, no line over 132 characters, a newline at the end of a file.
set -euo pipefail
cd "$(dirname "$0")/.."

bad=0
complain() { echo "$1" >&2; bad=1; }
while read -r file; do
    grep -nP '\t' "$file" && complain "$file: tab"
    grep -nE ' +$' "$file" && complain "$file: blanks at the end of a line"
    LC_ALL=C.UTF-8 awk -v file="$file" 'length($0) > 132 { print file ":" NR ": " length($0) " characters"; long = 1 } END { exit long }' "$file" >&2 || bad=1
    [ -z "$(tail -c 1 "$file")" ] || complain "$file: no newline at the end"
done < <(find . -name '*.jl' -o -name '*.toml' | sort)
exit "$bad"
