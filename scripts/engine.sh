#!/usr/bin/env bash
# Installs and starts a Docker engine with buildx and Compose on a bare Debian or Ubuntu machine.
# Usage: engine.sh            install what is missing, start it, wait until it answers
#        engine.sh if-needed  the same, but only where it is ours to do (see `ours_to_do`)
# Environment: BOOTSTRAP=0 refuses to install or start anything; BOOTSTRAP=1 does not ask.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/messages.sh
. scripts/minimum-versions.sh
. scripts/debian.sh

readonly APT_SOURCE=/etc/apt/sources.list.d/docker-from-testing.sources
readonly APT_PIN=/etc/apt/preferences.d/docker-from-testing
readonly ENGINE_LOG=/var/log/dockerd.log
readonly PID_FILE=/var/run/docker.pid
readonly HOW_TO_INSTALL='install Docker: https://docs.docker.com/engine/install/'

engine_answers() { docker info >/dev/null 2>&1; }

# Only a missing local engine is ours to install: not one that DOCKER_HOST or a context points to.
remote_engine_chosen() {
  [ -n "${DOCKER_HOST:-}" ] && return 0
  command -v docker >/dev/null || return 1
  [ "$(docker context show 2>/dev/null || echo default)" != default ]
}

# Is all there that `docker compose up --build` needs beside the engine?
plugins_answer() { docker compose version >/dev/null 2>&1 && docker buildx version >/dev/null 2>&1; }

# An engine from elsewhere than the distribution's packages: those would be put over it.
foreign_engine() { command -v dockerd >/dev/null && ! dpkg-query --status docker.io >/dev/null 2>&1; }

# Returns when the engine may be installed or started; ends the script with one line when not.
ours_to_do() {
  if engine_answers && { remote_engine_chosen || foreign_engine || [ "$(id -u)" != 0 ] ||
    [ "${BOOTSTRAP:-}" = 0 ]; }; then
    fail 'Docker lacks its plugin compose or its plugin buildx' \
      'install them as you installed Docker: https://docs.docker.com/compose/install/'
  elif engine_answers; then
    return
  elif remote_engine_chosen; then
    fail "the Docker engine chosen by DOCKER_HOST or \`docker context\` does not answer" \
      'docker context use default; unset DOCKER_HOST'
  elif [ "${BOOTSTRAP:-}" = 0 ]; then
    fail 'no Docker engine answers, and BOOTSTRAP=0 forbids to set one up' "$HOW_TO_INSTALL"
  elif [[ $(docker version 2>&1) == *'permission denied'* ]]; then
    fail 'the Docker engine refuses this user' \
      "sudo usermod -aG docker $(id -un), then log in again"
  elif [ "$(id -u)" != 0 ] && command -v dockerd >/dev/null; then
    fail 'the Docker engine is installed but does not answer' 'sudo systemctl start docker'
  elif [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    fail 'no Docker engine answers' \
      "$HOW_TO_INSTALL (or on Debian and Ubuntu, as root: make engine)"
  elif [ -t 0 ] && [ -t 1 ] && [ "${BOOTSTRAP:-}" != 1 ]; then
    read -rp 'No Docker engine answers. Install and start one from Debian packages? [y/N] ' answer
    [[ $answer == [yY]* ]] || fail 'no Docker engine' "$HOW_TO_INSTALL"
  fi
}

# candidate PACKAGE: the version apt would install, without epoch and Debian's suffixes.
candidate() {
  apt-cache policy "$1" 2>/dev/null | sed -nE 's/^ *Candidate: ([0-9]+:)?([0-9.]+).*/\2/p'
}

at_least() { [ -n "$1" ] && dpkg --compare-versions "$1" ge "$2"; }

# The engine's packages, new enough, in the distribution's own archive? Prints them.
packages_of_distribution() {
  at_least "$(candidate docker.io)" "$MINIMUM_ENGINE" || return 1
  # Debian calls Compose docker-compose, Ubuntu docker-compose-v2.
  local compose
  for compose in docker-compose-v2 docker-compose; do
    if at_least "$(candidate "$compose")" "$MINIMUM_COMPOSE"; then
      printf '%s\n' docker.io docker-buildx "$compose"
      # Since Debian 13 the client is a package of its own.
      apt-cache show docker-cli >/dev/null 2>&1 && echo docker-cli
      return 0
    fi
  done
  return 1
}

# Debian testing's packages need only a libc that Debian 12 has. The pin keeps the rest of the
# machine on its own release (apt_preferences(5): below 100 nothing is taken unless named).
add_testing_suite() {
  local mirror log
  mirror=$(debian_mirror)
  [ -n "$mirror" ] || fail "no Docker ≥ $MINIMUM_ENGINE in this distribution's packages" "$HOW_TO_INSTALL"
  say "adding $APT_SOURCE ($DEBIAN_SUITE from the mirror this machine uses) and $APT_PIN"
  # Check-Valid-Until: images/debian.sh has the reason.
  cat >"$APT_SOURCE" <<EOF
Types: deb
URIs: $mirror
Suites: $DEBIAN_SUITE
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
EOF
  printf 'Package: *\nPin: release n=%s\nPin-Priority: 50\n' "$DEBIAN_SUITE" >"$APT_PIN"
  if ! log=$(LC_ALL=C apt-get -qq update 2>&1) && is_frozen <<<"$log"; then
    echo 'Check-Valid-Until: no' >>"$APT_SOURCE"
  fi
  apt_get update
}

apt_get() {
  DEBIAN_FRONTEND=noninteractive quietly apt-get -qq -o Dpkg::Use-Pty=0 "$@" ||
    fail "apt-get $1 failed, its words are above" 'fix that, then: make engine'
}

install_engine() {
  local packages
  ! foreign_engine || fail 'this Docker is not from the distribution, and lacks parts' "$HOW_TO_INSTALL"
  say 'looking for Docker packages'
  apt_get update
  if packages=$(packages_of_distribution); then
    say "installing the distribution's packages:" "${packages//$'\n'/ }"
  else
    add_testing_suite
    packages=$(printf "%s/$DEBIAN_SUITE " docker.io docker-cli docker-buildx docker-compose \
      containerd tini-static)
    say "installing Debian testing's packages, since this release's are too old: $packages"
  fi
  # shellcheck disable=SC2086 # a list of packages
  apt_get install -y --no-install-recommends $packages
  packages=${packages//"/$DEBIAN_SUITE"/}
  say "to undo: apt-get purge --autoremove ${packages//$'\n'/ }"
  say "         rm -rf /var/lib/docker /var/lib/containerd $APT_SOURCE $APT_PIN"
}

start_engine() {
  if [ -d /run/systemd/system ]; then
    say 'starting the engine: systemctl enable --now docker'
    systemctl enable --quiet --now docker
  else
    # After a crash the number in this file may be another process's, and dockerd would not start.
    [[ $(readlink "/proc/$(cat "$PID_FILE" 2>/dev/null)/exe") == */dockerd ]] || rm -f "$PID_FILE"
    say "starting the engine: dockerd in a session of its own, log in $ENGINE_LOG"
    say "to stop it: kill \$(cat $PID_FILE)"
    setsid --fork dockerd >>"$ENGINE_LOG" 2>&1 </dev/null
  fi
}

wait_for_engine() {
  local deadline=$((SECONDS + 60))
  until engine_answers; do
    [ $SECONDS -lt $deadline ] ||
      fail 'the Docker engine was started but does not answer' "tail $ENGINE_LOG; journalctl -u docker"
    sleep 0.5
  done
}

[ "${1:-}" = if-needed ] && engine_answers && exit 0
if ! engine_answers || ! plugins_answer; then
  ours_to_do
  if ! command -v dockerd >/dev/null || ! plugins_answer; then install_engine; fi
fi
engine_answers || start_engine
wait_for_engine
say "Docker engine $(docker version --format '{{.Server.Version}}'), Compose $(docker compose version --short)"
