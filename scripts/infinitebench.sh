#!/usr/bin/env bash
# InfiniteBench, the six tasks of the published script: predictions, then scores.
#   bash scripts/infinitebench.sh [config] [output folder] [further arguments of benchmark/pred.py]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
config=${1:-$ROOT/config/mistral-inf-llm.yaml}
output=${2:-$ROOT/benchmark/infinite-bench-result}
python=$(find_installed)

datasets=kv_retrieval,passkey,number_string,code_debug,math_find,longbook_choice_eng

"$python" "$ROOT/benchmark/pred.py" --config_path "$config" --output_dir_path "$output" \
    --datasets "$datasets" "${@:3}"
"$python" "$ROOT/benchmark/eval.py" --dir_path "$output"
