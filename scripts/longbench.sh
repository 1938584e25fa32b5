#!/usr/bin/env bash
# LongBench, English and code (16 tasks): predictions, then scores.
#   bash scripts/longbench.sh [config] [output folder] [further arguments of benchmark/pred.py]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
config=${1:-$ROOT/config/mistral-inf-llm.yaml}
output=${2:-$ROOT/benchmark/longbench-result}
python=$(find_installed)

datasets=narrativeqa,qasper,multifieldqa_en,hotpotqa,2wikimqa,musique,gov_report,qmsum,multi_news
datasets+=,trec,triviaqa,samsum,passage_count,passage_retrieval_en,lcc,repobench-p

"$python" "$ROOT/benchmark/pred.py" --config_path "$config" --output_dir_path "$output" \
    --datasets "$datasets" "${@:3}"
"$python" "$ROOT/benchmark/eval.py" --dir_path "$output"
