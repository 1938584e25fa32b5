#!/usr/bin/env bash
# Clients of other projects against `inf-llm serve` with a real model:
#   bash scripts/real_models.sh smollm2 .models/smollm2 && bash scripts/client_tests.sh
# They have an environment of their own, .venv-clients: their versions are not this project's.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

install_clients
OMP_NUM_THREADS=1 timed "clients with a real model" \
    bash "$ROOT/scripts/test.sh" tests/real/test_clients.py -m real -k "not replicas" "$@"
