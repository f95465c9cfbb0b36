#!/bin/sh
# The official image's template step, by its documented contract: /etc/nginx/templates/X.template
# becomes /etc/nginx/conf.d/X with each ${VARIABLE} that is set in the environment filled in; nginx's
# own variables stay. NGINX_ENVSUBST_FILTER (a regular expression) limits which names count.
set -e
output=${NGINX_ENVSUBST_OUTPUT_DIR:-/etc/nginx/conf.d}
names=$(env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/\1/p' | grep -E "${NGINX_ENVSUBST_FILTER:-}" |
  sed 's/.*/${&}/' | tr '\n' ' ')
cd /etc/nginx/templates
for template in *.template; do
  [ -e "$template" ] || continue
  envsubst "$names" <"$template" >"$output/${template%.template}"
done
