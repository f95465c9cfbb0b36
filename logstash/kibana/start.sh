#!/bin/bash
# Starts Kibana with its secrets in the environment, from which kibana.yml takes them. Under names that are
# no setting's in capitals: the image's entry point would put those on the command line, for all to see.
set -eu

KIBANA_PASSWORD=$(</run/secrets/kibana_password)
KIBANA_ENCRYPTION_KEY=$(</run/secrets/kibana_encryption_key)
export KIBANA_PASSWORD KIBANA_ENCRYPTION_KEY
exec /usr/local/bin/kibana-docker
