#!/usr/bin/env bash
# Makes the virtual environment in which lint and tests run. Usage: venv.sh FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/messages.sh

python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "lint and tests need Python 3.11 or newer, python3 is $(python3 -V), and make test a Linux engine on this machine" \
    'install a newer python3'
python3 -c 'import ensurepip, venv' 2>/dev/null ||
  fail 'this Python cannot make virtual environments' 'apt-get install python3-venv'

say "installing the tools of lint and tests into $1"
rm -rf "$1"
# Where bash found python3 above may have been in there.
hash -r
python3 -m venv "$1"
# --no-deps: pip before 23.3, which Python 3.11 and 3.12 bring, resolves a locked package with an extra,
# such as coverage[toml], again. It finds a newer release on the index and refuses that for want of a hash.
wheels=()
if [ -d app/wheels ]; then wheels=(--find-links=app/wheels); fi
"$1/bin/pip" install --quiet --disable-pip-version-check --require-hashes --no-deps \
  ${wheels[@]+"${wheels[@]}"} -r app/requirements.txt -r tests/requirements.txt
problems=$("$1/bin/pip" check) ||
  fail "the locks are incomplete: ${problems%%$'\n'*}" 'make requirements'
touch "$1/ready"
