#!/usr/bin/env bash
# `make grafana-password`: a new password for Grafana's admin, in secrets/grafana_password and in its database,
# which is where the running Grafana has it from.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/messages.sh

readonly FILE=secrets/grafana_password OLD=secrets/grafana_password.old

[ ! -L "$FILE" ] || fail "$FILE is a link to $(readlink "$FILE"), which a new password would replace" \
  'replace the link by a copy of the file'
[ -s "$FILE" ] || fail "there is no $FILE to replace" 'make secrets'
[ -n "$(docker compose ps --quiet grafana 2>/dev/null)" ] ||
  fail 'Grafana does not run, so it could not be told' 'make up WITH=monitoring'

mv "$FILE" "$OLD"
trap 'mv "$OLD" "$FILE"' EXIT
quietly bash scripts/secrets.sh
# https://grafana.com/docs/grafana/latest/administration/cli/#reset-admin-password
quietly docker compose exec --no-TTY grafana \
  grafana cli --homepath /usr/share/grafana --config /etc/grafana/grafana.ini \
  admin reset-admin-password --password-from-stdin <"$FILE" ||
  fail "Grafana did not take it, its words are above; the old password stays" 'make logs'
trap - EXIT
rm "$OLD"
say "admin's new password is in $FILE"
