#!/usr/bin/env bash
# Fetches the benchmarks from their official homes:
#   bash scripts/download.sh [longbench] [infinitebench] [longeval] [ruler] [--data_dir D]
# The same as python -m benchmark.download, which says more with --help.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python}
command -v "$python" >/dev/null || python=python3
exec "$python" "$here/benchmark/download.py" "$@"
