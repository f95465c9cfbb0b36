#!/bin/sh
# `make reload`: serves a certificate that was replaced. Checks it first; when something is wrong, says so, and
# the old one is served as before. nginx itself is not reloaded: HTTP/2 would lose requests (docs/edge.md).
set -eu
# shellcheck source=nginx/entrypoint/05-settings.envsh
. /docker-entrypoint.d/05-settings.envsh
/docker-entrypoint.d/15-self-signed-certificate.sh
/docker-entrypoint.d/16-certificate.sh
