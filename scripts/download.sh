#!/usr/bin/env bash
# Fetches the benchmarks from their official homes:
#   bash scripts/download.sh [longbench] [infinitebench] [longeval] [ruler] [--data_dir D]
# The same as python -m benchmark.download, which says more with --help.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
python=$(find_installed)
exec "$python" "$ROOT/benchmark/download.py" "$@"
