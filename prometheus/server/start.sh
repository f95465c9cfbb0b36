#!/bin/sh
# Starts Prometheus with the settings that its configuration needs, since it knows no variables:
# SCRIPT_NAME in the address of the site, and what alerts have to know, as a rule.
set -eu

# Not *.yml, which are rules.
sed "s#SCRIPT_NAME#$SCRIPT_NAME#" /etc/prometheus/prometheus.yml >/tmp/configuration
cat >/tmp/settings.yml <<END
groups:
  - name: settings
    rules:
      - {record: app:replicas:wanted, expr: vector($APP_REPLICAS)}
END
# In a Swarm a name leads to a container only once it is healthy: there LISTEN is the network of the address.
case ${LISTEN-} in
  *.0/24) LISTEN=$(grep -o "^${LISTEN%0/24}[0-9]*" /etc/hosts) ;;
esac
# localhost is for itself and the health check. Without LISTEN, everywhere.
# A query of the defaults (50 million samples, two minutes) needs more memory than there is.
exec /bin/prometheus --config.file=/tmp/configuration --storage.tsdb.path=/prometheus \
  --query.max-samples=10000000 --query.timeout=30s \
  --web.listen-address="${LISTEN-}:9090" ${LISTEN:+--web.listen-address=localhost:9090} "$@"
