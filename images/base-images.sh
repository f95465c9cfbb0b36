#!/usr/bin/env bash
# Makes the base images of this project's Dockerfiles present: pulled from their registry, or, where
# that cannot be reached, fallback images built from Debian packages (docs/no-registry.md).
# Usage: base-images.sh DOCKERFILE…
# Prints NAME_IMAGE=… for each fallback image in use, to be put into the environment of
# `docker compose build`, and NAME_IMAGE= for an image that is not here and has no fallback image; with official
# images it prints nothing. Progress goes to stderr.
# Environment: BASE_IMAGES=auto (default) | registry (never a fallback image) | debian (always fallback images)
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/messages.sh
. scripts/debian.sh
. images/debian.sh

# One at a time of all clones of this user: two would build the same. In a folder that nobody else can write: in /tmp
# a link of somebody else's could have this open another file. By Python, because macOS has no flock.
lock=${XDG_CACHE_HOME:-${HOME:-.}/.cache}/base-images.lock
if ! mkdir -p "${lock%/*}" || ! exec 9>>"$lock"; then
  fail "$lock cannot be written" 'XDG_CACHE_HOME=FOLDER make up'
fi
python3 -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'

# Asked once about an image that is here: each question takes Docker 0.1 s.
here=' '
have() {
  [[ $here == *" $1 "* ]] || { docker image inspect "$1" >/dev/null 2>&1 && here+="$1 "; }
}

# fallback_image NAME FILE…: the fallback image's image name; its tag follows from the files that go into it.
fallback_image() {
  local name=$1 hash
  shift
  hash=$(cat scripts/debian.sh images/debian.sh "$@" | sha256)
  echo "fallback/$name:${hash:0:12}"
}

# has_fallback LINE, of NAME_IMAGE=image
has_fallback() { [ -d "$(folder_of "$1")" ]; }
folder_of() {
  local variable=${1%%_IMAGE=*}
  echo "images/$(tr '[:upper:]' '[:lower:]' <<<"$variable")"
}

# Prints NAME_IMAGE=fallback image for each image that has one.
fallback_images() {
  local line folder
  for line in $replaceable; do
    folder=$(folder_of "$line")
    echo "${line%%=*}=$(fallback_image "$(basename "$folder")" "$folder"/*)"
  done
}

pull() {
  have "$1" && return
  say "pulling $1" >&2
  pull_error=$(docker pull --quiet "$1" 2>&1 >/dev/null)
}

# Side by side: they mostly wait for the package mirror.
build_fallback_images() {
  local debian line image name builds=()
  debian=$(fallback_image debian)
  for line in $fallback_images; do
    image=${line#*=}
    name=${image#*/}
    if [[ "${builds[*]-} " == *":$image "* ]] || have "$image"; then continue; fi
    have "$debian" || build_debian "$debian" >&2
    say "building $image from Debian packages" >&2
    quietly docker build --build-arg http_proxy --build-arg https_proxy --build-arg no_proxy \
      --build-arg DEBIAN_IMAGE="$debian" --tag "$image" "images/${name%:*}" &
    builds+=("$!:$image")
  done
  # The sign +, because without builds bash 3.2 would call the list unbound.
  for line in ${builds[@]+"${builds[@]}"}; do
    wait "${line%%:*}" ||
      fail "${line#*:} could not be built, Docker's words are above" 'make doctor'
  done
}

# each TEST LINES: does TEST hold for the image of every NAME_IMAGE=image line?
each() {
  local line
  for line in $2; do "$1" "${line#*=}" || return 1; done
}

# without TEST: prints NAME_IMAGE= for those without a fallback image for which TEST does not hold.
without() {
  local line
  for line in $irreplaceable; do
    "$1" "${line#*=}" || echo "${line%%=*}="
  done
}

# use_fallback_images WHY
use_fallback_images() {
  fallback_images=$(fallback_images)
  build_fallback_images
  say "base images: fallback images from Debian packages ($1); see docs/no-registry.md" >&2
  echo "$fallback_images"
  without have
}

# The one place of an image's version is the first line of the Dockerfile that uses it.
pinned=$(sed -nE 's/^ARG ([A-Z_]+_IMAGE=.+)/\1/p' "$@")
replaceable='' irreplaceable=''
for line in $pinned; do
  if has_fallback "$line"; then replaceable+="$line "; else irreplaceable+="$line "; fi
done

case "${BASE_IMAGES:-auto}" in
  registry)
    each pull "$replaceable" || fail "a base image cannot be pulled: ${pull_error##*$'\n'}" \
      'check the network and docker login, or allow fallback images (docs/no-registry.md): BASE_IMAGES=debian'
    without pull
    ;;
  debian) use_fallback_images 'BASE_IMAGES=debian' ;;
  auto)
    if each have "$replaceable"; then
      without pull
    elif fallback_images=$(fallback_images) && each have "$fallback_images"; then
      use_fallback_images 'built when no registry answered; BASE_IMAGES=registry asks again'
    elif each pull "$replaceable"; then
      without pull
    else
      use_fallback_images "no registry answers: ${pull_error##*$'\n'}"
    fi
    ;;
  *) fail "BASE_IMAGES=$BASE_IMAGES is none of auto, registry, debian" 'make up BASE_IMAGES=auto' ;;
esac
