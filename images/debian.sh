# shellcheck shell=bash
# The image that all fallback images are built on. Sourced, not run.

# build_debian IMAGE: a minimal Debian, imported as an image. Where this machine trusts certificates
# of its own (a TLS-inspecting proxy), the image has to trust them too.
build_debian() {
  if ! command -v mmdebstrap >/dev/null; then
    [ "$(id -u)" = 0 ] || fail 'no registry answers, and fallback images need mmdebstrap' \
      'sudo apt-get install mmdebstrap debian-archive-keyring'
    say 'installing mmdebstrap'
    quietly apt-get -qq update
    DEBIAN_FRONTEND=noninteractive quietly apt-get -qq -o Dpkg::Use-Pty=0 install -y \
      --no-install-recommends mmdebstrap debian-archive-keyring ||
      fail 'mmdebstrap could not be installed, the words of apt-get are above' 'fix that, then: make up'
  fi
  say "building $1: Debian $DEBIAN_SUITE, the smallest set of packages"
  local folder mirror
  folder=$(mktemp -d)
  # Empty on Ubuntu: mmdebstrap then takes its own default.
  mirror=$(debian_mirror)
  # root_file_system OPTION…: not through a pipe, `docker import` would make an image of half of one, too.
  root_file_system() {
    # shellcheck disable=SC2016 # $1 is for mmdebstrap: the root file system
    LC_ALL=C mmdebstrap --variant=minbase --include=ca-certificates "$@" \
      --customize-hook='cp -r /usr/local/share/ca-certificates "$1/usr/local/share/"' \
      --customize-hook='chroot "$1" update-ca-certificates' \
      "$DEBIAN_SUITE" "$folder/root.tar" ${mirror:+"$mirror"} 2>"$folder/log"
  }
  root_file_system ||
    { is_frozen <"$folder/log" && root_file_system --aptopt='Acquire::Check-Valid-Until "false"'; } || {
    tail -n 20 "$folder/log" >&2
    rm -r "$folder"
    fail "mmdebstrap could not build $1, its words are above" 'check that the Debian mirror answers'
  }
  docker import --change 'LABEL base-images=debian' "$folder/root.tar" "$1" >/dev/null ||
    fail "docker could not import $1" "check the disk: df -h $folder"
  rm -r "$folder"
}
