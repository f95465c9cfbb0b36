#!/bin/sh
# Starts Alertmanager with those receivers whose secret is filled in: it knows no conditions.
set -eu

configuration=/tmp/alertmanager.yml
cp /etc/alertmanager/alertmanager.yml "$configuration"
grep -o '/run/secrets/[a-z0-9_]*' /etc/alertmanager/alertmanager.yml | while read -r secret; do
  if ! grep -q '[^[:space:]]' "$secret"; then
    echo "secrets/${secret##*/} is empty: nobody is told that way (prometheus/receivers.md)" >&2
    sed -i "\\#$secret#d" "$configuration"
  fi
done
# One is enough here: without an address for others like it.
exec /bin/alertmanager --config.file="$configuration" --storage.path=/alertmanager \
  --cluster.listen-address= --web.listen-address="${LISTEN-}:9093" \
  ${LISTEN:+--web.listen-address=localhost:9093} "$@"
