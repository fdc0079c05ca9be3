#!/bin/sh
# Builds the Linux core where that is possible. Where it is not, the install goes on without it: the portable engine
# then runs, and `--engine linux` says what is missing.
cd "$(dirname "$0")" || exit 1

without() {
  echo "dualport: the Linux engine is not built: $1. The portable engine runs instead." >&2
  exit 0
}

[ "$(uname -s)" = Linux ] || without "this is $(uname -s)"
command -v make >/dev/null || without "there is no make (apt-get install make)"
command -v "${CC:-cc}" >/dev/null || without "there is no C compiler (apt-get install gcc libc6-dev)"
headers=$(sh node-headers.sh)
[ -e "$headers/node_api.h" ] || without "the headers of Node are not in $headers (apt-get install libnode-dev)"
output=$(make -s NODE_INCLUDE="$headers" 2>&1) || without "$(printf '%s' "$output" | head -n 3)"
output=$(make -s launcher 2>&1) || echo "dualport: the program for dockerd is not built: $output" >&2
