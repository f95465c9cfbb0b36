#!/bin/sh
# `make reload`: loads a certificate that was replaced. Checks it and the whole configuration first; when
# something is wrong, says so, and what is loaded goes on. Workers finish what they have
# (worker_shutdown_timeout in nginx.conf, keepalive_min_timeout in clients.conf).
set -eu
# shellcheck source=nginx/entrypoint/05-settings.envsh
. /docker-entrypoint.d/05-settings.envsh
/docker-entrypoint.d/15-self-signed-certificate.sh
nginx -t -q
nginx -s reload
