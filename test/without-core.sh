#!/bin/sh
# The suites where the core in C is not built, as after an install without a compiler: in a copy of this checkout without
# native/build and native/prebuilds. A test that needs the core is skipped there and says so; whatever is skipped for
# another reason, in CI, is an error. usage: test/without-core.sh
set -eu
cd "$(dirname "$0")/.."
[ -e dist/test ] || { echo "without-core: dist/test is not there: npm run build" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
chmod 755 "$work" # one test runs the program as nobody
mkdir "$work/checkout"
tar -c --exclude=./.git --exclude=./node_modules --exclude=./native/build \
  --exclude=./native/prebuilds . | tar -x -C "$work/checkout"
ln -s "$PWD/node_modules" "$work/checkout/node_modules"
cd "$work/checkout"

# In CI nothing may be missing, and here the core is.
in_ci=${CI:-}
unset CI
status=0
node --test --test-reporter=spec --test-concurrency=2 --test-timeout=300000 \
  $(find dist/test/unit dist/test/engine -name '*.test.js' | sort) \
  dist/test/e2e/cli.test.js dist/test/e2e/serve.test.js dist/test/e2e/without-core.test.js \
  > "$work/output" 2>&1 || status=$?
[ "$status" -eq 0 ] || { sed -n '/^ℹ tests/,$p' "$work/output"; exit "$status"; }

skipped() { grep '^ *﹣' "$work/output" || true; }
core='# its native part is not built'
skipped | grep -q "$core" || { echo "without-core: no test says that it needs the core" >&2; exit 1; }
others=$(skipped | grep -v "$core" || true)
if [ "$in_ci" = true ] && [ -n "$others" ]; then
  printf 'without-core: skipped for another reason than the core:\n%s\n' "$others" >&2
  exit 1
fi
grep -E '^ℹ (pass|fail|skipped)' "$work/output"
