#!/bin/bash
# The container's health check: nginx answers 200 on its status port. It says nothing about the
# application: nginx is healthy when it can show its own error page.
# Usage: healthcheck [PATH]
# In bash, which opens TCP connections by itself: not every base image has curl.

# Answers to be kept can come in faster, from several clients, than nginx removes old ones, which it does every ten
# seconds. A copy for which there is no space costs a line in the error log, and nginx leaves what it has written of
# it. So the cache is left out while less than 16 MB are free, half of min_free in cache.conf.
read -r free block < <(stat --file-system --format '%a %S' /var/cache/nginx)
if ((free * block < 16 * 1024 * 1024)); then
  : >/tmp/cache-full
  find /var/cache/nginx -type f -name '*.*' -mmin +1 -delete
else
  rm -f /tmp/cache-full
fi

exec 3<>/dev/tcp/127.0.0.1/8081 || exit 1
printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "${1:-/healthz}" >&3
read -r -t 2 _ status _ <&3
[[ $status == 200 ]]
