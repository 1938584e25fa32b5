#!/usr/bin/env bash
# Lint, types and tests, as CI runs them:
#   bash scripts/test.sh           everything but the slow rows
#   bash scripts/test.sh --slow    the slow rows only
#   bash scripts/test.sh ARGS      anything else goes to pytest: -k config, tests/test_config.py
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

install "[dev,eval,faiss,chat,gguf]"
cd "$ROOT"

if [ "${1:-}" = --slow ]; then
    shift
    step "slow tests"
    exec "$VENV/bin/python" -m pytest -m slow "$@"
fi
if [ $# -eq 0 ]; then
    step "lint"
    "$VENV/bin/python" -m ruff check .
    "$VENV/bin/python" -m ruff format --check .
    step "types"
    "$VENV/bin/python" -m mypy
    step "tests"
    set -- --numprocesses 2
fi
exec "$VENV/bin/python" -m pytest "$@"
