#!/bin/sh
# `make release`: sends requests to these containers of the application and to no others, which can then be
# stopped. Not by a reload: HTTP/2 loses requests on connections that are just being opened (docs/edge.md).
# Usage: upstream ADDRESS…
#        upstream            all that Docker's DNS has for the name `app`, as upstream.conf says
# Returns when nothing is under way to the others any more. A restart of the container undoes it.
set -eu

file=/tmp/upstream

if [ $# = 0 ]; then
  [ -e "$file" ] || exit 0
  # Until nginx has asked DNS again, which it does each second (upstream.conf) and may take one answer longer.
  sleep 3
  rm "$file"
  exit
fi

hex=
for address; do
  echo "$address:8000"
  # As /proc/net/tcp writes it: the bytes in the other order.
  # shellcheck disable=SC2086
  hex=$hex$(IFS=. && set -- $address && printf '|%02X%02X%02X%02X' "$4" "$3" "$2" "$1")
done >"$file.new"
mv "$file.new" "$file"

# Established connections, or those about to be, to port 8000 of others. Kept ones end when they were idle
# for keepalive_timeout (upstream.conf); what takes longer than proxy_read_timeout is not waited for.
deadline=$(($(date +%s) + 35))
while grep -E ':1F40 0[12] ' /proc/net/tcp | grep -qvE " (${hex#|}):1F40 " && [ "$(date +%s)" -lt $deadline ]; do
  sleep 0.2
done
