#!/usr/bin/env bash
# Replicas of the server on Ray, on this machine:
#   bash scripts/cluster_tests.sh
#   bash scripts/cluster_tests.sh -m slow      500 requests while replicas are killed; a rolling restart
#   bash scripts/cluster_tests.sh --clients    clients of other projects; needs .models/smollm2
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

TESTS=(tests/cluster tests/cli/test_many.py tests/benchmark/test_benchmark_ray.py)
if [ "${1:-}" = --clients ]; then
    shift
    install_clients
    TESTS=(tests/real/test_clients.py -m real -k replicas)
fi
install "[dev,eval,faiss,chat,gguf,documents,peers,ray]"
cd "$ROOT"
RAY_USAGE_STATS_ENABLED=0 OMP_NUM_THREADS=1 timed "replicas on Ray" \
    "$VENV/bin/python" -m pytest "${TESTS[@]}" "$@"
