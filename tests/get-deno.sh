#!/usr/bin/env bash
# Brings a Deno for the test of the manual's configuration:
#
#   tests/get-deno.sh BUILD_DIR
#
# Installs it from npm under BUILD_DIR/npm. Never fails: without Deno that test
# says that it was skipped, and why is said here.
set -u
build=${1:?usage: get-deno.sh BUILD_DIR}
folder=$build/npm
limit=300 # seconds; the package has 40 MB

found() {
  local program
  for program in "${PUP_DENO:-}" "$(command -v deno)" \
      "$folder"/node_modules/@deno/linux-*/deno; do
    if [ -x "$program" ] && timeout 60 "$program" --version >/dev/null 2>&1; then
      echo "deno: $program"
      return 0
    fi
  done
  return 1
}

found && exit 0
if ! command -v npm >/dev/null; then
  echo "deno: not found, and no npm to install it; its test will be skipped" >&2
  exit 0
fi
mkdir -p "$folder"
# The postinstall script only copies the program, which the test finds without
# it; some machines forbid such scripts.
if ! timeout "$limit" npm install --prefix "$folder" --ignore-scripts \
    --no-audit --no-fund --no-save deno >"$folder/install.log" 2>&1; then
  tail -n 5 "$folder/install.log" >&2
  echo "deno: npm could not install it in $limit s; its test will be skipped" >&2
  exit 0
fi
found || echo "deno: installed, but it does not run here; its test will be skipped" >&2
exit 0
