# shellcheck shell=bash
# What both the engine set-up and the fallback images take from Debian. Sourced, not run.

# The suite whose packages are new enough for both; docs/no-registry.md says which are needed.
# shellcheck disable=SC2034 # read by the files that source this one
DEBIAN_SUITE=forky

# is_frozen: does apt's output on stdin say that the mirror's Release file is past its Valid-Until (a week in testing)?
# Then the caller stops checking that, and one line says so.
#
# apt refuses such a file, because whoever controls the mirror could hide security updates behind an old one, whose
# signature still holds. A frozen mirror, as closed sites and CI have it, offers no other file. Without the check only
# its age is unknown: who signed it is always checked. apt.conf(5), Acquire::Check-Valid-Until
is_frozen() {
  local age
  age=$(sed -nE '/ is expired /{s/.*\((invalid since [^)]*)\).*/\1/p;q;}')
  [ -n "$age" ] || return
  say "note: the Debian mirror is frozen ($age): packages are as old, their signatures are checked"
}

# Prints the address of the package mirror this machine already uses, so that none is written down
# here. Prints nothing where the machine is not Debian.
debian_mirror() {
  local codename
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  # shellcheck disable=SC2016 # $(…) is for apt to fill in
  apt-get indextargets --format '$(REPO_URI)' \
    'Created-By: Packages' 'Origin: Debian' "Codename: $codename" 'Component: main' 2>/dev/null | sed -n 1p
}
