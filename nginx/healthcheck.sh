#!/bin/bash
# The container's health check: nginx answers 200 on its status port. It says nothing about the
# application: nginx is healthy when it can show its own error page.
# In bash, which opens TCP connections by itself: not every base image has curl.
exec 3<>/dev/tcp/127.0.0.1/8081 || exit 1
printf 'GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
read -r -t 2 _ status _ <&3
[[ $status == 200 ]]
