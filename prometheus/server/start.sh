#!/bin/sh
# Starts Prometheus with what alerts have to know of the settings, as a rule: it knows no variables.
set -eu

cat >/tmp/settings.yml <<END
groups:
  - name: settings
    rules:
      - {record: app:replicas:wanted, expr: vector($APP_REPLICAS)}
END
exec /bin/prometheus --config.file=/etc/prometheus/prometheus.yml --storage.tsdb.path=/prometheus "$@"
