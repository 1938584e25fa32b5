#!/usr/bin/env bash
# A published table again, the paper's figures beside those measured here:
#   bash scripts/reproduce.sh infllm|lm-infinite|streaming-llm [arguments of benchmark/reproduce.py]
# Without a GPU a smoke run of a minute; with one, fetch the data first: scripts/download.sh infinitebench
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
python=$(find_installed)
method=${1:?"infllm, lm-infinite or streaming-llm"}
exec "$python" "$ROOT/benchmark/reproduce.py" "$method" --output_dir_path "reproduced/$method" "${@:2}"
