#!/bin/sh
# The official image's entry point, by its contract: before nginx starts, each executable file of
# /docker-entrypoint.d is sourced (*.envsh) or run (*.sh), in the order of `sort -V`. In a subshell: what one sets
# reaches those after it, and nginx does not get it.
set -e
case "$1" in
  nginx | nginx-debug)
    find /docker-entrypoint.d -follow -type f | sort -V | while read -r file; do
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
