#!/bin/sh
# `make purge`: nginx forgets the answers it keeps (templates/cache.conf.template): all of them or, with
# `make purge URL='/path?query'`, those to this URL. The next visitor gets a new one from the application,
# unless one was on its way already.
# Usage: purge [URL]
set -eu

folder=/var/cache/nginx/pages
url=${1-}

# Files that hold an answer to $url, whatever its Vary: in their head stands the line "KEY: scheme://host/…".
kept() {
  if [ -z "$url" ]; then
    # Not those that nginx is writing, NAME.NUMBER.
    find "$folder" -type f ! -name '*.*'
  else
    literally=$(printf '%s\n' "$url" | sed 's/[][\.*^$]/\\&/g')
    # 1: there is none. 2: nginx has removed a file meanwhile.
    grep -rslax "KEY: https\{0,1\}://[^/]*$literally" "$folder" || [ $? -le 2 ]
  fi
}

case $url in
  '' | /*) ;;
  *)
    printf "error: '%s' does not begin with a slash -> write path and query: make purge URL='/path?query'\n" "$url" >&2
    exit 1
    ;;
esac

# nginx finds the file gone and asks the application. (When it comes to removing it by itself, ten minutes
# later, it says so in its error log: "unlink() … failed (2: No such file or directory)".)
files=$(kept)
[ -z "$files" ] || printf '%s\n' "$files" | xargs rm -f
printf 'purged %s\n' "$(printf '%s' "$files" | grep -c .)"
