#!/bin/sh
# nginx as the official image has it: its error log, before any configuration is read, is a file that leads to
# stderr, where each message then appears twice. A later -e wins.
exec /usr/libexec/nginx -e /var/log/nginx/error.log "$@"
