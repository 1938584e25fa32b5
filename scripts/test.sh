#!/usr/bin/env bash
# Lint, types and tests, as CI runs them:
#   bash scripts/test.sh           everything but the slow rows and the real models
#   bash scripts/test.sh --slow    the slow rows only
#   bash scripts/test.sh --real    the tests with real models, which scripts/real_models.sh fetches
#   bash scripts/test.sh ARGS      anything else goes to pytest: -k config, tests/test_config.py
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

install "[dev,eval,faiss,chat,gguf,documents,peers]"
cd "$ROOT"

python() { "$VENV/bin/python" -m "$@"; }

case "${1:-}" in
    --slow)
        shift
        timed "slow tests" python pytest -m slow "$@"
        ;;
    --real)
        shift
        # two processes of one thread do more than one process of two
        OMP_NUM_THREADS=1 timed "tests with real models" \
            python pytest tests/real -m real --numprocesses 2 --dist worksteal "$@"
        ;;
    "")
        timed "lint" python ruff check .
        timed "format" python ruff format --check .
        timed "types" python mypy
        # programs that tests start would have a thread for each core; a file's tests share models
        # and servers, so they stay together
        OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE timed "tests" \
            python pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
        ;;
    *) python pytest "$@" ;;
esac
