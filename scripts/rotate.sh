#!/usr/bin/env bash
# `make rotate`: replaces SECRET_KEY in two steps, each followed by a deploy. While replicas are replaced,
# a session that a new one signed has to be read by an old one, too: so first all learn the new key
# (secret_key_fallbacks), and only then they sign with it. Sessions signed with the old key stay readable;
# its line in secrets/secret_key_fallbacks can go when they have expired (31 days, Flask's default).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/messages.sh

readonly KEY=secrets/secret_key OLD=secrets/secret_key_fallbacks NEXT=secrets/secret_key_next
readonly DEPLOY='make up, make release or make swarm-deploy'

for file in "$KEY" "$OLD" "$NEXT"; do
  [ ! -L "$file" ] || fail "$file is a link to $(readlink "$file"), which a new key would replace" \
    'replace the link by a copy of the file, or change the keys where they are kept'
done
[ -s "$KEY" ] || fail "there is no $KEY to replace" 'make secrets'

# replace FILE: with what comes in, at once and readable as before (scripts/secrets.sh).
replace() {
  cat >"$1.new"
  chmod 644 "$1.new"
  mv "$1.new" "$1"
  echo "$(sha256 <"$1")  $1" >>secrets/.made
}

if [ ! -e "$NEXT" ]; then
  python3 -c 'import secrets; print(secrets.token_hex(32))' | replace "$NEXT"
  cat "$NEXT" "$OLD" | replace "$OLD"
  say "step 1 of 2: made the next key; now $DEPLOY, then: make rotate"
else
  {
    # With a line end, which a key that somebody else wrote may lack.
    awk 1 "$KEY"
    grep -vxF -f "$NEXT" "$OLD" || true
  } | replace "$OLD"
  replace "$KEY" <"$NEXT"
  rm "$NEXT"
  say "step 2 of 2: the next key is in place; now $DEPLOY"
fi
