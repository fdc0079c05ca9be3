#!/bin/sh
# The Linux engine's whole suite, and all scripts it has to play like the portable one, over the core with the address
# and undefined-behaviour sanitizers. The built program is copied to where its native part is the sanitized one: the
# product itself has no way to be told of another.
# usage: [DIST=folder of what tsc has built] test/engine-san.sh
set -eu
cd "$(dirname "$0")/../.."
dist=${DIST:-dist}
suite=test/engine/linux.test.js
parity=test/engine/parity.test.js
for file in "$suite" "$parity"; do
  [ -e "$dist/$file" ] || { echo "engine-san: $dist/$file is not there: npm run build" >&2; exit 1; }
done

make -s -C native SAN=1 addon
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir -p "$copy/native/build"
cp -r "$dist" "$copy/dist"
cp native/build/dualport-san.node "$copy/native/build/dualport.node"
ln -s "$PWD/package.json" "$PWD/node_modules" "$copy"

# What Node keeps until its end is no leak of ours; the core's own leaks are found by `make test SAN=1`.
status=0
CI=true LD_PRELOAD=$(gcc -print-file-name=libasan.so) \
  ASAN_OPTIONS=detect_leaks=0:log_path="$copy/report" UBSAN_OPTIONS=print_stacktrace=1:log_path="$copy/report" \
  node --test --test-reporter=dot --test-concurrency=2 --test-timeout=300000 \
    "$copy/dist/$suite" "$copy/dist/$parity" || status=$?
for report in "$copy"/report*; do
  [ ! -e "$report" ] || { cat "$report" >&2; status=1; }
done
[ "$status" -eq 0 ] && echo ok
exit "$status"
