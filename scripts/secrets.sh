#!/usr/bin/env bash
# Makes the secrets that are missing; what is there stays as it is. What it made is noted in
# secrets/.made, so that `make clean` can tell it from what a person put there.
# Compose mounts these files with the owner and mode they have here, and the containers run as other
# users: so the files are readable and the folder is not (docs: services.secrets of the Compose file).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/messages.sh

mkdir -p secrets
chmod 700 secrets

# make_secret NAME COMMAND…: writes what COMMAND prints to secrets/NAME, unless the file exists.
make_secret() {
  local file=secrets/$1
  shift
  [ -e "$file" ] && return
  "$@" >"$file.new"
  chmod 644 "$file.new"
  mv "$file.new" "$file"
  sha256sum "$file" >>secrets/.made
  say "made $file"
}

random() { python3 -c 'import secrets; print(secrets.token_hex(32))'; }

make_secret secret_key random
# Old keys, one a line, that still read the sessions they signed; none until a key is replaced (`make
# rotate`). A line end all the same, because Swarm has no empty secrets.
make_secret secret_key_fallbacks echo
if [ -d prometheus ]; then
  # Where alerts are sent to, and the call that has to come every minute; nowhere until filled in.
  make_secret alert_webhook_url echo
  make_secret dead_mans_switch_url echo
  make_secret grafana_password random
  make_secret grafana_secret_key random
fi
