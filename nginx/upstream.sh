#!/bin/sh
# `make release`: sends requests to these containers of the application and to no others, which can then be
# stopped; with a reload, so none is lost.
# Usage: upstream ADDRESS…
#        upstream            all that Docker's DNS has for the name `app`, as upstream.conf says
# Returns when the workers of before have finished. A restart of the container undoes it.
set -eu

template=/etc/nginx/templates/upstream.conf.template
file=/etc/nginx/conf.d/upstream.conf

new=$(mktemp)
{
  sed '/server app:8000 resolve/,$d' "$template"
  for address; do
    sed -n "s/server app:8000 resolve/server $address:8000/p" "$template"
  done
  # Out of use, but not out of the file: nginx takes over what it knows of the name at a reload. Without, it
  # would have to ask first when the name is in use again, and answer 502 until then (2 of 20,000 requests).
  sed -n "s/server app:8000 resolve/&${1:+ down}/p" "$template"
  sed '1,/server app:8000 resolve/d' "$template"
} >"$new"

if ! cmp -s "$new" "$file"; then
  old=$(cat "$file")
  cat "$new" >"$file"
  nginx -t -q || {
    echo "$old" >"$file"
    exit 1
  }
  before=$(cat /proc/1/task/1/children)
  nginx -s reload
  # worker_shutdown_timeout ends the last of them.
  for process in $before; do
    while kill -0 "$process" 2>/dev/null; do sleep 0.2; done
  done
fi
rm "$new"
