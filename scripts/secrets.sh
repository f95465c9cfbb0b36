#!/usr/bin/env bash
# Usage: secrets.sh [COMPOSE_FILE]; with the files that Compose reads, no secrets of other add-ons.
# Makes the secrets that are missing; what is there stays as it is. What it made is noted in
# secrets/.made, so that `make clean` can tell it from what a person put there.
# Compose mounts these files with the owner and mode they have here, and the containers run as other
# users: so the files are readable and the folder is not (docs: services.secrets of the Compose file).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/messages.sh

# is_there FILE: a link that leads nowhere is not written over, since a mount may be missing.
is_there() {
  [ -e "$1" ] && return
  [ ! -L "$1" ] || fail "$1 is a link to $(readlink "$1"), which does not exist" \
    'mount or restore what it leads to, or remove the link to have a new one made'
  return 1
}

# make_secret NAME COMMAND…: writes what COMMAND prints to secrets/NAME, unless the file exists.
make_secret() {
  local file=secrets/$1
  shift
  is_there "$file" && return
  "$@" >"$file.new"
  chmod 644 "$file.new"
  mv "$file.new" "$file"
  echo "$(sha256 <"$file")  $file" >>secrets/.made
  say "made $file"
}

readonly FILES=${1-}
# wanted FOLDER: is the add-on here, and switched on if that is asked?
wanted() { [ -d "$1" ] && [[ -z $FILES || $FILES == *"$1/"* ]]; }

random() { python3 -c 'import secrets; print(secrets.token_hex(32))'; }

key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256; }

# Without these two, which not every openssl adds, Python 3.13 refuses a certificate.
key_identifiers='subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid'

# The logging add-on's own authority. Its key signs here, and no container has it.
authority() {
  openssl req -x509 -new -key secrets/logging_ca_key -days 3650 -subj '/CN=Flask in production, logging' \
    -config <(echo "[req]
distinguished_name=name
x509_extensions=authority
[name]
[authority]
basicConstraints=critical,CA:TRUE
keyUsage=critical,keyCertSign,cRLSign
$key_identifiers")
}

# certificate NAME: for the service of that name, which in a cluster is a client of the others, too.
certificate() {
  local extensions="subjectAltName=DNS:$1,DNS:localhost
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth,clientAuth
$key_identifiers"
  openssl req -new -key "secrets/$1_certificate_key" -subj "/CN=$1" |
    openssl x509 -req -CA secrets/logging_ca -CAkey secrets/logging_ca_key -days 730 \
      -set_serial "0x$(openssl rand -hex 16)" -extfile <(echo "$extensions") 2>/dev/null ||
    fail "openssl made no certificate for $1" 'openssl version; 1.1.1 or newer'
}

# make_certificates NAME…: by openssl, which `make doctor` checks for where the add-on is on.
make_certificates() {
  local name end
  # Its key may be kept elsewhere.
  if ! is_there secrets/logging_ca; then
    make_secret logging_ca_key key
    make_secret logging_ca authority
  fi
  for name in "$@"; do
    make_secret "${name}_certificate_key" key
    make_secret "${name}_certificate" certificate "$name"
  done
  for name in logging_ca "${@/%/_certificate}"; do
    openssl x509 -in "secrets/$name" -noout -checkend $((30 * 86400)) >/dev/null || {
      end=$(openssl x509 -in "secrets/$name" -noout -enddate)
      say "secrets/$name ends on ${end#*=}: logstash/README.md says how to renew it"
    }
  done
}

# A folder that a link leads to keeps its mode.
if ! is_there secrets; then mkdir secrets; fi
[ -L secrets ] || chmod 700 secrets

make_secret secret_key random
# Old keys, one a line, that still read the sessions they signed; none until a key is replaced (`make
# rotate`). A line end all the same, because Swarm has no empty secrets.
make_secret secret_key_fallbacks echo
if wanted prometheus; then
  # Where alerts are sent to, and the call that has to come every minute; nowhere until filled in.
  make_secret alert_webhook_url echo
  make_secret dead_mans_switch_url echo
  make_secret monitoring_password random
  make_secret grafana_password random
  make_secret grafana_secret_key random
fi
if wanted logstash; then
  make_secret elastic_password random
  make_secret kibana_password random
  make_secret logstash_password random
  make_secret kibana_encryption_key random
  if command -v openssl >/dev/null; then make_certificates elasticsearch logstash; fi
fi
