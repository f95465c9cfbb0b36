#!/bin/sh
# Starts the exporter with the first of SERVER_NAME, since its configuration knows no variables.
set -eu

name=${SERVER_NAME%%[ ,]*}
# .example.org takes in its subdomains.
sed "s/HOST_NAME/${name#.}/" /etc/blackbox_exporter/blackbox.yml >/tmp/blackbox.yml
exec /bin/blackbox_exporter --config.file=/tmp/blackbox.yml
