#!/bin/sh
# Starts nginx with the password in the form that it reads.
set -eu

printf 'admin:{PLAIN}%s\n' "$(cat /run/secrets/monitoring_password)" >/tmp/users
exec nginx -e stderr -g 'daemon off;'
