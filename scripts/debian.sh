# shellcheck shell=bash
# What both the engine set-up and the fallback images take from Debian. Sourced, not run.

# The suite whose packages are new enough for both; docs/no-registry.md says which are needed.
# shellcheck disable=SC2034 # read by the files that source this one
DEBIAN_SUITE=forky

# Prints the address of the package mirror this machine already uses, so that none is written down
# here. Prints nothing where the machine is not Debian.
debian_mirror() {
  local codename
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  # shellcheck disable=SC2016 # $(…) is for apt to fill in
  apt-get indextargets --format '$(REPO_URI)' \
    'Created-By: Packages' 'Origin: Debian' "Codename: $codename" 'Component: main' 2>/dev/null | sed -n 1p
}
