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
exec /bin/prometheus --config.file=/tmp/configuration --storage.tsdb.path=/prometheus "$@"
