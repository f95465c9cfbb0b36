#!/usr/bin/env bash
# `make test`: lint, unit tests, and the tests of the running stack, cheapest first.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/engine.sh if-needed
scripts/lint.sh
pytest tests/unit --cov --cov-report=term-missing:skip-covered
# Two stacks side by side, because most tests wait for something; a file stays with one of them. The longest
# come first, so that both end at about the same time. A fork may have deleted some.
first=()
for path in tests/stack/test_deploy.py tests/prometheus tests/stack/test_up.py; do
  if [ -e "$path" ]; then first+=("$path"); fi
done
pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder "${first[@]}" tests/stack
