#!/bin/sh
# A node: its engine, reachable by the tests on port 2375, and the registry under the name by which
# everybody knows it, that of the tests' own machine. Environment: REGISTRY_ADDRESS, REGISTRY_PORT, and
# ENGINE_OPTION for dockerd
set -eu

# With cgroup v2 a group gives its controllers to the groups below it only if it has no processes itself.
groups=/sys/fs/cgroup
if [ -e "$groups/cgroup.controllers" ]; then
  mkdir -p "$groups/init"
  while read -r process; do
    echo "$process" >"$groups/init/cgroup.procs" || true
  done <"$groups/cgroup.procs"
  controllers=$(cat "$groups/cgroup.controllers")
  for controller in $controllers; do
    echo "+$controller" >"$groups/cgroup.subtree_control"
  done
fi

socat "TCP-LISTEN:$REGISTRY_PORT,bind=127.0.0.1,fork,reuseaddr" "TCP:$REGISTRY_ADDRESS:5000" &
socat TCP-LISTEN:2375,fork,reuseaddr UNIX-CONNECT:/var/run/docker.sock &
# From before a kill.
rm -f /var/run/docker.pid /var/run/docker/containerd/containerd.pid
exec dockerd ${ENGINE_OPTION:+"$ENGINE_OPTION"}
