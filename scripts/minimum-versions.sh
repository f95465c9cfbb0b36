# shellcheck shell=bash
# The oldest Docker that can run this stack, and why. Sourced, not run.

# 25.0 brought `start_interval`, by which a starting container is asked for its health every second
# and `make up` ends in seconds (https://docs.docker.com/engine/release-notes/25.0/).
# 25.0.5 no longer passes on DNS queries from internal networks, by which data could leave (CVE-2024-29018).
# shellcheck disable=SC2034
MINIMUM_ENGINE=25.0.5

# 2.33 brought `additional_contexts: service:…`, by which nginx's image takes the static files out of
# the app's image at build time (https://docs.docker.com/reference/compose-file/build/).
# shellcheck disable=SC2034
MINIMUM_COMPOSE=2.33
