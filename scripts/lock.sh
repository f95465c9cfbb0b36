#!/usr/bin/env bash
# `make requirements`: writes requirements.txt, every package with its version and hashes, from the
# requirements.in beside it, for the application, for lint and tests, and for a tool apart.
# Versions that still fit stay, but for UPGRADE=all, or UPGRADE=flask for that package alone.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/messages.sh

command -v uv >/dev/null || fail 'uv is not on PATH' 'make requirements'

case "${UPGRADE:-}" in
  '') upgrade=() ;;
  all) upgrade=(--upgrade) ;;
  *) upgrade=(--upgrade-package "$UPGRADE") ;;
esac

# uv and pip want a folder.
wheels=$PWD/app/wheels
[ -d "$wheels" ] || wheels=$(mktemp -d)

# lock FOLDER [NAME]: from inside it, so that the comments in the file name no other path.
lock() {
  local name=${2:-requirements}
  (
    cd "$1"
    # Universal: one file for every platform and every Python from the oldest that the tests run on.
    # Without addresses, since everybody installs from their own index or app/wheels.
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
      --find-links "$wheels" --no-emit-index-url --no-emit-find-links --custom-compile-command 'make requirements' \
      --output-file "$name.txt" "$name.in" ${upgrade[@]+"${upgrade[@]}"}
  )
  say "$1/$name.txt: locked"
}

lock app
if [ -d logstash ]; then
  lock logstash/forwarder
  lock logstash/forwarder build-requirements
fi
# Keeps to the application's versions where both need a package.
lock tests
lock tests/soak/scanners
