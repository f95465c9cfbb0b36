#!/bin/bash
# Starts Elasticsearch from a copy of its configuration, in memory: beside it the image's entry point
# writes a keystore with the password of the user elastic, and the root file system is read-only.
set -eu

cp -rT /usr/share/elasticsearch/config "$ES_PATH_CONF"
# It refuses keys and certificates from elsewhere (SslFileUtil.java: "should be placed in the config
# directory").
cp /run/secrets/{logging_ca,elasticsearch_certificate,elasticsearch_certificate_key} "$ES_PATH_CONF"
# And not ELASTIC_PASSWORD_FILE, which takes modes 400 and 600 alone: in Compose a secret has the mode that
# it has on the host (scripts/secrets.sh).
ELASTIC_PASSWORD=$(</run/secrets/elastic_password)
export ELASTIC_PASSWORD
exec /usr/local/bin/docker-entrypoint.sh eswrapper
