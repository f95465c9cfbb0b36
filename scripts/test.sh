#!/usr/bin/env bash
# `make test`: lint, unit tests, and the tests of the running stack, cheapest first.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/engine.sh if-needed
scripts/lint.sh
pytest tests/unit --cov --cov-report=term-missing:skip-covered
pytest tests/stack
