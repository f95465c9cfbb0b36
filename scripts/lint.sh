#!/usr/bin/env bash
# `make lint`: every linter over every file that git does not ignore. All of them run, whatever they
# find, and each says in a line how it went. The tools are in tests/requirements.txt; exceptions, each
# with its reason, in pyproject.toml, .yamllint.yml, .hadolint.yaml and .compose-lint.yml.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/messages.sh

temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
failed=false

# check NAME COMMAND…: what the command prints is shown when it fails.
check() {
  local name=$1 output
  shift
  if output=$("$@" 2>&1); then
    say "ok    $name"
  else
    failed=true
    say "FAIL  $name"
    # shellcheck disable=SC2001 # a sed for each line
    sed 's/^/      /' <<<"$output"
  fi
}

# Through a repository of its own that is empty, so that an extracted archive, which has none, is
# listed by the same rules.
list_files() {
  # In a hook, git's variables lead to the real one.
  # shellcheck disable=SC2046 # names of variables
  unset $(git rev-parse --local-env-vars)
  git --git-dir="$temporary/git" init --quiet
  git --git-dir="$temporary/git" --work-tree=. ls-files -z --others --exclude-standard
}

is_shell() {
  local first=
  case $1 in
    *.sh | *.envsh) ;;
    *) read -r -n 80 first <"$1" && [[ $first == '#!'*sh ]] ;;
  esac
}

command -v shellcheck >/dev/null ||
  fail "shellcheck is not here, and has no Python package for $(uname -m)" 'apt-get install shellcheck'

files=()
while IFS= read -r -d '' file; do files+=("$file"); done < <(list_files)
[ "${#files[@]}" -gt 0 ] || fail 'git lists no files here, its words are above' 'git --version'
python=() shell=() yaml=() compose=() dockerfiles=() json=() requirements=()
for file in "${files[@]}"; do
  if is_shell "$file"; then shell+=("$file"); fi
  case $file in
    *.py) python+=("$file") ;;
    *docker-compose.yml | *docker-stack.yml) compose+=("$file") yaml+=("$file") ;;
    *.yml | *.yaml) yaml+=("$file") ;;
    *Dockerfile) dockerfiles+=("$file") ;;
    *.json) json+=("$file") ;;
    *requirements.txt) requirements+=("$file") ;;
  esac
done

# nginx's configuration as its container makes it from the templates, and for its version.
lint_nginx() {
  local folder=$temporary/nginx template version
  mkdir -p "$folder/conf.d"
  cp nginx/nginx.conf "$folder"
  # Those that the image has.
  : >"$folder/mime.types"
  : >"$folder/sensitive.map"
  for template in nginx/templates/*.template; do
    # shellcheck disable=SC2016 # ${…} is the template's
    sed 's/${SERVER_NAME}/localhost/g; s|${SCRIPT_NAME}|/shop|g; s/${PUBLIC_PORT_SUFFIX}/:8443/g; s/${MAX_BODY_SIZE}/10m/g
      s/${SET_REAL_IP_FROM}/set_real_ip_from 192.0.2.1;/g; s/${TRUSTED_RANGES}/192.0.2.1 1;/g
      s/${REAL_IP_HEADER}/X-Forwarded-For/g; s/${UNKNOWN_DEFAULT}/ default_server/g; s/${SITE_DEFAULT}//g
      s/${CORS_LINES}//g; s/${PROXY_PROTOCOL}//g; s/${COUNTED_LINE}//g; s/${METRICS}/js_content metrics.show/g
      s/${HSTS}/max-age=63072000/g; s/${[A-Z_]*}/100/g' \
      "$template" >"$folder/conf.d/$(basename "$template" .template)"
  done
  version=$(sed -nE '1s/^ARG NGINX_IMAGE=nginx:([0-9.]+).*/\1/p' nginx/Dockerfile)
  # Of what it cannot parse gixy says nothing, its parser does. ssrf: it takes whatever a js_set returns for a
  # client's words; what live.js returns is upstream.sh's.
  crossplane parse "$folder/nginx.conf" | python3 -c '
import json, sys
sys.exit("\n".join(problem["error"] for problem in json.load(sys.stdin)["errors"]) or 0)' &&
    gixy --skips ssrf --nginx-version "$version" "$folder/nginx.conf"
}

# `make up` finds them too, but by then somebody has committed them.
no_windows_line_ends() { ! grep -IlU $'\r$' -- "${files[@]}"; }

# Hosts of package registries, by this machine's own settings.
registries() {
  {
    python3 -m pip install --help | grep -A 2 -e --index-url
    python3 -m pip config list | grep -E 'index-url|find-links'
    npm config get registry
    # shellcheck disable=SC2016 # $(…) is for apt to fill in
    apt-get indextargets --format '$(REPO_URI)'
  } 2>/dev/null | sed -nE 's#.*https?://([^/@ ]*@)?([[:alnum:].-]+\.[a-z]+).*#\2#p' | sort -u
}

# A fork's own registry, or a folder of one person, must not become everybody's.
nothing_of_this_machine() {
  ! grep -IFn -f <(
    registries
    # /app is in every Dockerfile.
    if [[ $PWD == /*/* ]]; then echo "$PWD"; fi
  ) -- "${files[@]}"
}

# Each requirement goes on in the next line, with its hashes.
hashes() { ! grep -Hn '^[[:alnum:]].*[^\]$' -- "${requirements[@]}"; }

# Words of this project's own that the field's terms have replaced. A fork's code may need them.
retired_words() {
  local file searched=()
  for file in "${files[@]}"; do
    case $file in
      CHANGELOG.md | scripts/lint.sh | app/webapp/*) ;;
      *) searched+=("$file") ;;
    esac
  done
  ! grep -InwiE 'rooms?|stand-ins?|mend(s|ed|ing)?|anew' -- "${searched[@]}"
}

parse_json() {
  local file wrong=0
  for file in "${json[@]}"; do
    python3 -m json.tool "$file" >/dev/null || {
      wrong=1
      say "in $file"
    }
  done
  return "$wrong"
}

check 'ruff check' ruff check --quiet "${python[@]}"
check 'ruff format' ruff format --quiet --diff "${python[@]}"
check 'shellcheck' shellcheck -x "${shell[@]}"
check 'shfmt' shfmt -d -i 2 -ci "${shell[@]}"
check 'yamllint' yamllint --strict "${yaml[@]}"
check 'hadolint' hadolint --no-color "${dockerfiles[@]}"
check 'compose: schema' check-jsonschema --builtin-schema vendor.compose-spec "${compose[@]}"
# As it is in the repository: without anybody's .env or docker-compose.override.yml.
check 'compose-lint' compose-lint check --fail-on low --strict-config --no-env --no-merge-overrides \
  --quiet docker-compose.yml
# A fork may have deleted what these are for (docs/fork.md).
if [ -e docker-stack.yml ]; then
  check 'compose-lint (Swarm)' compose-lint check --fail-on low --strict-config --no-env \
    --no-merge-overrides --quiet --config .compose-lint-stack.yml docker-stack.yml
fi
check 'gixy (nginx)' lint_nginx
if [ -d .github/workflows ]; then
  check 'workflows: schema' check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*
  check 'zizmor (workflows)' zizmor --offline --no-progress --quiet --strict-collection --pedantic .github
fi
if [ -e renovate.json ]; then
  check 'renovate.json: schema' check-jsonschema --builtin-schema vendor.renovate renovate.json
fi
check 'JSON' parse_json
check 'requirements have hashes' hashes
check 'no Windows line ends' no_windows_line_ends
check 'no retired words' retired_words
check 'no registry, no local path' nothing_of_this_machine

if $failed; then
  fail 'lint found what is listed above' 'make format fixes the formatting; the rest by hand'
fi
