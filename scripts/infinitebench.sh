#!/usr/bin/env bash
# InfiniteBench, the six tasks of the published script: predictions, then scores.
#   bash scripts/infinitebench.sh [config] [output folder] [further arguments of benchmark/pred.py]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
config=${1:-$here/config/mistral-inf-llm.yaml}
output=${2:-$here/benchmark/infinite-bench-result}
python=${PYTHON:-python}

datasets=kv_retrieval,passkey,number_string,code_debug,math_find,longbook_choice_eng

"$python" "$here/benchmark/pred.py" --config_path "$config" --output_dir_path "$output" \
    --datasets "$datasets" "${@:3}"
"$python" "$here/benchmark/eval.py" --dir_path "$output"
