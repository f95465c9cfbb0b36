#!/usr/bin/env bash
# `make test`: lint, unit tests, and the tests of the running stack, cheapest first.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/messages.sh

# Docker Desktop's containers are in a virtual machine: no other machine has their addresses, nor their /proc.
[ "$(uname)" = Linux ] || fail 'make test needs Linux, with the Docker engine on this machine' 'make unit'

bash scripts/engine.sh if-needed
bash scripts/lint.sh
pytest --numprocesses=2 tests/unit --cov --cov-report=term-missing:skip-covered
# Two stacks side by side, because most tests wait for something; a file's tests stay with one of them.
# Not by --dist=loadgroup, which pytest 9.2 silently keeps from grouping anything:
# https://github.com/pytest-dev/pytest-xdist/issues/1386
# The longest come first, so that both end at about the same time. A fork may have deleted add-ons.
folders=()
for folder in tests/prometheus tests/logstash tests/attack tests/stack; do
  if [ -d "$folder" ]; then folders+=("$folder"); fi
done
# What takes longer is in folders named all: make test-all.
pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder --ignore-glob='tests/*/all' "${folders[@]}"
