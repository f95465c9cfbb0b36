# shellcheck shell=bash
# How every script here speaks: progress on stdout, one line for what is wrong. Sourced, not run.

say() { printf '%s\n' "$*"; }

# fail PROBLEM FIX: ends with one line, what is wrong and what to type.
fail() {
  printf 'error: %s -> %s\n' "$1" "$2" >&2
  exit 1
}

# sha256: of what comes in. By Python, because macOS has no sha256sum.
sha256() { python3 -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'; }

# quietly COMMAND…: its output is shown only when it fails.
quietly() {
  local output
  output=$("$@" 2>&1) || {
    printf '%s\n' "$output" >&2
    return 1
  }
}
