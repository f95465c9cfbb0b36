#!/bin/sh
# The official image's entry point, by its documented contract: before nginx starts, each executable
# file of /docker-entrypoint.d is sourced (*.envsh) or run (*.sh), in the order of their names.
set -e
case "$1" in
  nginx | nginx-debug)
    for file in /docker-entrypoint.d/*; do
      [ -x "$file" ] || continue
      # shellcheck disable=SC1090 # whatever the image puts there
      case "$file" in
        *.envsh) . "$file" ;;
        *.sh) "$file" ;;
      esac
    done
    ;;
esac
exec "$@"
